// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// A Source is a file that is read by code of the caller's: HTTP, object
// stores, asset packs.
type Source struct {
	// ReaderAt reads. It is called on goroutines of its own, several at once.
	// A read may be short where its error is nil or io.EOF; other errors end
	// the call that needed the bytes, and can be found in its error. Where it is
	// a [ContextReaderAt] too, that is what reads.
	ReaderAt io.ReaderAt
	// Size is the file's size in bytes.
	Size int64
	// PreferredRead is the request size that suits best, in bytes; 0: any.
	PreferredRead int
	// MaxParallel is how many reads may be under way at once; 0: any number.
	MaxParallel int
	// Closer is closed when the library is done with the source: with the
	// checkpoint, or before a failed open returns. It may be nil.
	Closer io.Closer
}

// A ContextReaderAt is an [io.ReaderAt] whose reads can be cancelled. The context
// is that of the call that needs the bytes. Where several calls under way could
// need just these, and they go to memory of the library's first (to be converted,
// or cut out of more), it is done when all of theirs are.
type ContextReaderAt interface {
	ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error)
}

// OpenReaderAt opens one file of size bytes through a reader, which has to stay
// usable until Close and is not closed. Options may be nil.
func OpenReaderAt(reader io.ReaderAt, size int64, options *OpenOptions) (*Checkpoint, error) {
	return OpenSource(Source{ReaderAt: reader, Size: size}, options)
}

// OpenSource opens one file through a reader. Options may be nil.
func OpenSource(source Source, options *OpenOptions) (*Checkpoint, error) {
	return OpenSourceContext(context.Background(), source, options)
}

// OpenSourceContext is OpenSource with a context for the opening alone: once it
// is done, no further read begins, and the error is an [ErrCancelled] and the
// context's.
func OpenSourceContext(ctx context.Context, source Source, options *OpenOptions) (*Checkpoint, error) {
	c := &callbacks{}
	given, err := c.source(source, "")
	if err != nil {
		return nil, err
	}
	defer c.anywhere(ctx)()
	handle, failure := cst.OpenSource(given, options.c())
	if failure != nil {
		return nil, ended(ctx, failure, c.failures())
	}
	return opened(handle, nil, c, nil)
}

// OpenResolved opens a file, or with a name that ends in .index.json an index
// with its shards, through open, which is asked for each file: first for name,
// then for each shard, under its name with name's folder before it. Its errors
// can be found in the error of OpenResolved. Options may be nil.
func OpenResolved(open func(name string) (Source, error), name string, options *OpenOptions) (*Checkpoint, error) {
	return OpenResolvedContext(context.Background(), open, name, options)
}

// OpenResolvedContext is OpenResolved with a context for the opening alone, as
// that of OpenSourceContext.
func OpenResolvedContext(ctx context.Context, open func(name string) (Source, error), name string,
	options *OpenOptions) (*Checkpoint, error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	if err := begun(ctx); err != nil {
		return nil, err
	}
	if err := withoutNUL(name); err != nil {
		return nil, err
	}
	if open == nil {
		return nil, invalid("open is nil")
	}
	c := &callbacks{}
	defer c.anywhere(ctx)()
	handle, failure := cst.OpenResolved(&resolver{open, c}, name, options.c())
	if failure != nil {
		return nil, ended(ctx, failure, c.failures())
	}
	return opened(handle, nil, c, nil)
}

// OpenFS opens a file, an index with its shards, or a folder ("." is the whole)
// of a file system: [os.DirFS], an [embed.FS], and so on. Of a folder it takes
// model.safetensors.index.json, else its only *.safetensors.index.json, else its
// only *.safetensors, else model.safetensors, else its only complete series of
// shards; names that begin with a dot are ignored. Files that can neither be read at an offset nor be
// sought in (those in a zip archive) are read into memory. Options may be nil.
func OpenFS(fsys fs.FS, name string, options *OpenOptions) (*Checkpoint, error) {
	open := func(name string) (Source, error) { return sourceOf(fsys, name) }
	if info, err := fs.Stat(fsys, name); err == nil && info.IsDir() {
		return openFolder(fsys, name, open, options)
	}
	return OpenResolved(open, name, options)
}

func sourceOf(fsys fs.FS, name string) (Source, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return Source{}, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		file.Close()
		return Source{}, err
	}
	source := Source{Size: info.Size(), Closer: file}
	switch file := file.(type) {
	case io.ReaderAt:
		source.ReaderAt = file
	case io.ReadSeeker:
		source.ReaderAt = &seeking{file: file}
	default:
		// One byte more than it should have shows that it has grown.
		data, err := io.ReadAll(io.LimitReader(file, source.Size+1))
		if err == nil && int64(len(data)) != source.Size {
			err = &fs.PathError{Op: "read", Path: name, Err: io.ErrUnexpectedEOF}
		}
		if err != nil {
			file.Close()
			return Source{}, err
		}
		source.ReaderAt = inMemory(data)
	}
	return source, nil
}

// seeking reads at offsets of a file that can only seek, one read at a time.
type seeking struct {
	mutex sync.Mutex
	file  io.ReadSeeker
}

func (s *seeking) ReadAt(dst []byte, offset int64) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, err := s.file.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	return io.ReadFull(s.file, dst)
}

// inMemory reads at offsets of bytes; C asks for none outside.
type inMemory []byte

func (m inMemory) ReadAt(dst []byte, offset int64) (int, error) { return copy(dst, m[offset:]), nil }

// callbacks is what the readers of one checkpoint share.
type callbacks struct {
	kept    failures
	mutex   sync.Mutex
	closing []error
	reading map[*reading]struct{} // calls under way
}

func (c *callbacks) failures() *failures {
	if c == nil {
		return nil
	}
	return &c.kept
}

// closed returns what closing sources has returned so far, once.
func (c *callbacks) closed() error {
	if c == nil {
		return nil
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	err := errors.Join(c.closing...)
	c.closing = nil
	var p *panicked
	if errors.As(err, &p) {
		panic(p.value)
	}
	return err
}

// source is a Source as the library takes it. One that it can't take is closed.
func (c *callbacks) source(source Source, name string) (cst.Source, error) {
	err := compatible()
	switch {
	case err != nil:
	case source.ReaderAt == nil:
		err = invalid("Source.ReaderAt is nil")
	case source.Size < 0 || source.PreferredRead < 0 || source.MaxParallel < 0:
		err = invalid("Source has a negative number: Size %d, PreferredRead %d, MaxParallel %d",
			source.Size, source.PreferredRead, source.MaxParallel)
	}
	if err != nil {
		if source.Closer != nil {
			source.Closer.Close()
		}
		return cst.Source{}, err
	}
	return cst.Source{
		Reader:        &reader{source, name, c},
		Size:          uint64(source.Size),
		PreferredRead: uint(source.PreferredRead),
		MaxParallel:   uint(source.MaxParallel),
	}, nil
}

// reader is a Source as the library sees it.
type reader struct {
	source    Source
	name      string // the resolver's; "" for a lone one
	callbacks *callbacks
}

func (r *reader) ReadAt(dst []byte, offset uint64) (int, *cst.Error) {
	var n int
	ctx, release := r.callbacks.contextOf(r.name, offset, dst)
	defer release()
	err := ctx.Err()
	if err != nil {
		return 0, r.callbacks.kept.note(err, ErrCancelled)
	}
	err = aside(func() (err error) {
		if reader, ok := r.source.ReaderAt.(ContextReaderAt); ok {
			n, err = reader.ReadAtContext(ctx, dst, int64(offset))
		} else {
			n, err = r.source.ReaderAt.ReadAt(dst, int64(offset))
		}
		switch {
		case n < 0 || n > len(dst):
			return fmt.Errorf("ReadAt returned %d of %d bytes", n, len(dst))
		case n == len(dst) || n > 0 && err == io.EOF:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		}
		return err
	})
	if err == nil {
		return n, nil
	}
	if _, ok := err.(*panicked); !ok && ctx.Err() != nil {
		// Whatever it says, it was cancelled.
		err = errors.Join(err, ctx.Err())
	}
	return 0, r.callbacks.kept.note(err, ErrIO)
}

func (r *reader) Release() {
	if r.source.Closer == nil {
		return
	}
	if err := aside(r.source.Closer.Close); err != nil {
		r.callbacks.mutex.Lock()
		defer r.callbacks.mutex.Unlock()
		r.callbacks.closing = append(r.callbacks.closing, err)
	}
}

// resolver is the caller's function as the library sees it.
type resolver struct {
	open      func(name string) (Source, error)
	callbacks *callbacks
}

func (r *resolver) Open(name string) (cst.Source, *cst.Error) {
	var given cst.Source
	err := aside(func() error {
		source, err := r.open(name)
		if err != nil {
			return err
		}
		given, err = r.callbacks.source(source, name)
		return err
	})
	if err != nil {
		return cst.Source{}, r.callbacks.kept.note(err, ErrIO)
	}
	return given, nil
}

func (r *resolver) Release() {}

// pinned holds what must not move until a checkpoint is closed.
var pinned sync.Map

// pin keeps bytes where they are until release.
func pin(data []byte) (release func()) {
	if len(data) == 0 {
		return func() {}
	}
	pinner := new(runtime.Pinner)
	pinner.Pin(&data[0])
	pinned.Store(pinner, nil)
	return func() {
		pinned.Delete(pinner)
		pinner.Unpin()
	}
}
