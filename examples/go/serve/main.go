// SPDX-License-Identifier: Apache-2.0

// Serve answers over HTTP what is in a checkpoint, and streams its tensors.
//
//	serve [-listen ADDRESS] CHECKPOINT
//
//	GET /                  files, metadata, totals for each dtype
//	GET /tensors?prefix=P  the tensors whose names begin so
//	GET /data?name=N       one tensor's bytes, little-endian, in C order;
//	                       with &dtype=F32 converted, with &slice=0:8,:,-1: part of it
//
// A client that goes away ends its stream, and so does the end of the service.
// SIGHUP opens the checkpoint anew: requests under way finish with the old one.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("serve: ")
	listen := flag.String("listen", "localhost:8080", "the `address` to listen on")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: serve [-listen ADDRESS] CHECKPOINT")
	}
	if err := run(*listen, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(address, path string) error {
	service, err := newService(path)
	if err != nil {
		return err
	}
	defer service.Close()

	// Done at the first interrupt; every request's context comes from it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Addr:              address,
		Handler:           service.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("%s on http://%s/", path, address)
	for {
		select {
		case <-reload:
			if err := service.reload(); err != nil {
				log.Printf("still the old one: %v", err)
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := server.Shutdown(grace); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return server.Close()
		}
	}
}
