// SPDX-License-Identifier: Apache-2.0

// Package safetensors reads and writes safetensors checkpoints, through the C
// library libsafetensors.
//
// A checkpoint is a .safetensors file, a sharded model with its
// .safetensors.index.json, or a folder that holds either:
//
//	model, err := safetensors.Open("model.safetensors")
//	if err != nil {
//		return err
//	}
//	defer model.Close()
//	for _, tensor := range model.Tensors() {
//		fmt.Println(tensor.Name, tensor.DType, tensor.Shape, tensor.Size)
//	}
//
// Everything that a file's header says has been checked when Open returns. No
// file can crash the program, and none is believed a size that it does not have.
//
// # Lifetimes
//
// What a [Checkpoint] tells about itself (its tensors' names and shapes, its
// metadata, its shards) is ordinary Go memory and stays valid for ever. What
// it lends is not: the slices from [Tensor.Bytes], [Tensor.Float32s] and their
// like lead into the mapped file, or into memory of the library's, and end with
// [Checkpoint.Close]. The garbage collector knows nothing of them, and does not
// close a checkpoint that has been forgotten: there is no finalizer that could
// pull a mapping away from under a slice in use. So: Close, once nothing uses
// those slices any longer. [Checkpoint.Retain] gives a second owner to code
// that needs the bytes for a time of its own, as a request in a server does.
//
// Methods called after Close return an error that is [ErrClosed]; a Close while
// other goroutines are inside methods lets those finish first. Only a slice that
// is used after Close is a fault that ends the program.
//
// Bytes are lent read-only: writing to a mapped file's slice ends the program
// too. Where the file may be cut short by somebody while it is open, reading
// the lost part of a mapping does so as well; see [AccessRead]. On a goroutine that
// has called [debug.SetPanicOnFault] with true, Go code that touches the lost part
// panics instead, and may recover, copying its bytes elsewhere for instance; C
// code that does, and [Convert] and [Save] are such, still ends the program.
//
// What is copied out ([Tensor.ReadInto], [Tensor.ReadSlice], [Checkpoint.Load])
// goes into memory of the caller's, is read from the file and never through
// the mapping, and gives an error where the disk or the file does not play along.
//
// # Goroutines
//
// A checkpoint does not change once it is open: all methods may be called from
// any number of goroutines at once, Close too. So may those of a [Writer].
//
// Functions that the caller passes in run in Go alone: a progress function and
// a sink's functions on the goroutine that made the call, those that read (an
// [io.ReaderAt] and the like) on goroutines of their own, several at once. One
// that panics ends the call, and the panic goes on in the caller. They may use
// the checkpoint.
//
// A context ends what reads: no further read begins once it is done, and reads
// under way are waited for. Those of a [ContextReaderAt] end early.
//
// # Errors
//
// An error of the library is an [*Error]: which rule was broken ([Status]), the
// system's errno, and a message that names file, tensor, rule and numbers, and
// is safe to print. Statuses are errors, to be found with [errors.Is]; so are
// the system's, and what a reader of the caller's returned:
//
//	errors.Is(err, safetensors.ErrDuplicateKey)
//	errors.Is(err, fs.ErrNotExist)
//	errors.Is(err, context.Canceled)
//
// # Linking
//
// The package is cgo: it wants a C compiler, and finds the installed library
// with pkg-config. With the build tag safetensors_static the library becomes
// part of the program; the README beside this package has both.
package safetensors
