// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"context"

	"github.com/libsafetensors/libsafetensors/bindings/go/internal/cst"
)

// Order says how tensors follow one another in a file.
type Order int32

const (
	OrderReference Order = 0 // by dtype, widest first, then by name, as the reference implementation writes
	OrderGiven     Order = 1 // as given
)

// Sync says whether a file is brought to the disk.
type Sync int32

const (
	SyncFull Sync = 0 // files and their names are on the disk when the call returns
	SyncNone Sync = 1 // the system writes them when it likes
)

// Overwrite says what happens to a file that exists.
type Overwrite int32

const (
	OverwriteReplace Overwrite = 0 // it is replaced, in one step
	OverwriteRefuse  Overwrite = 1 // it stays: an error that is fs.ErrExist
)

// SaveOptions says how to write. The zero value is the default in every field.
type SaveOptions struct {
	// Metadata goes into the header, sorted by key; nil: none, which differs
	// from an empty map.
	Metadata map[string]string
	Order    Order
	// Alignment: the data section begins at a multiple of this many bytes, a
	// power of two from 8 to 2097152; 0: 8.
	Alignment uint32
	// MaxShardSize: most bytes of tensors in one file; 0: one file. Where that is
	// not enough, NAME-00001-of-0000N.safetensors and so on are written, and
	// NAME.safetensors.index.json, instead of NAME.safetensors.
	MaxShardSize uint64
	Sync         Sync
	Overwrite    Overwrite
	// HeaderReserve: spare bytes in the header, for a later SetMetadata.
	HeaderReserve uint64
	// Progress hears how many of the tensors' bytes are written, and at the end
	// that all are. Not for NewWriter.
	Progress func(done, total uint64)
}

func (o *SaveOptions) c() *cst.SaveOptions {
	if o == nil {
		return &cst.SaveOptions{}
	}
	return &cst.SaveOptions{
		Metadata:      o.Metadata,
		Order:         int32(o.Order),
		Alignment:     o.Alignment,
		MaxShardSize:  o.MaxShardSize,
		Sync:          int32(o.Sync),
		Overwrite:     int32(o.Overwrite),
		HeaderReserve: o.HeaderReserve,
	}
}

// Save writes tensors to a file: byte for byte what the reference implementation
// writes for the same tensors and metadata. The file appears whole or not at
// all, and an older one is replaced in one step. Options may be nil.
//
// Tensors of a checkpoint are copied from its files; with tensors of several,
// those of all but the first go through [Tensor.Bytes]. The context cancels.
//
// Errors: what could not be read back is refused before anything is written
// ([ErrDuplicateKey], [ErrShape], [ErrSizeMismatch], [ErrSubByte],
// [ErrHeaderTooLarge], [ErrUnsupported], [ErrInvalidArgument]); [ErrIO] with the
// errno; [ErrCancelled], which is the context's error too.
func Save(ctx context.Context, path string, tensors []*Tensor, options *SaveOptions) error {
	if err := withoutNUL(path); err != nil {
		return err
	}
	return write(ctx, tensors, options, func(given []cst.NewTensor, o *cst.SaveOptions) *cst.Error {
		return cst.Save(path, given, o)
	})
}

// Serialize returns the bytes of the file that Save would write. MaxShardSize
// must not make several of it; Sync and Overwrite are of no effect.
func Serialize(ctx context.Context, tensors []*Tensor, options *SaveOptions) ([]byte, error) {
	var file []byte
	err := write(ctx, tensors, options, func(given []cst.NewTensor, o *cst.SaveOptions) (failure *cst.Error) {
		file, failure = cst.Serialize(given, o)
		return failure
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

// write makes a call that writes all tensors.
func write(ctx context.Context, tensors []*Tensor, options *SaveOptions,
	call func([]cst.NewTensor, *cst.SaveOptions) *cst.Error) (err error) {
	if err := compatible(); err != nil {
		return err
	}
	if err := begun(ctx); err != nil {
		return err
	}
	var sources sources
	defer sources.done(&err)
	given, err := sources.given(tensors, true)
	if err != nil {
		return err
	}
	o := options.c()
	if first := sources.first(); first != nil {
		o.Source = first.handle
		if first.callbacks != nil {
			defer first.callbacks.anywhere(ctx)()
		}
	}
	if ctx.Done() == nil && (options == nil || options.Progress == nil) {
		return failed(call(given, o), sources.failures())
	}
	failure := bridged(ctx, func(b *bridge) *cst.Error {
		var told func(done, total uint64)
		if options != nil {
			told = options.Progress
		}
		o.Progress = b.progress(told)
		return call(given, o)
	})
	return ended(ctx, failure, sources.failures())
}

// sources is the checkpoints in use by a call, the first of which the library
// reads from itself.
type sources []*core

func (s *sources) done(err *error) {
	for _, core := range *s {
		core.done(err)
	}
}

func (s *sources) first() *core {
	if len(*s) == 0 {
		return nil
	}
	return (*s)[0]
}

func (s *sources) failures() *failures {
	if first := s.first(); first != nil {
		return first.callbacks.failures()
	}
	return nil
}

// use begins the use of a tensor's checkpoint, once for each.
func (s *sources) use(t *Tensor) error {
	for _, core := range *s {
		if core == t.core {
			return nil
		}
	}
	if err := t.use(); err != nil {
		return err
	}
	*s = append(*s, t.core)
	return nil
}

// given is tensors as the library takes them.
func (s *sources) given(tensors []*Tensor, withData bool) ([]cst.NewTensor, error) {
	given := make([]cst.NewTensor, len(tensors))
	for i, t := range tensors {
		if t == nil {
			return nil, invalid("tensors[%d] is nil", i)
		}
		given[i] = cst.NewTensor{Name: t.Name, DType: int32(t.DType), Shape: t.Shape}
		if !withData {
			continue
		}
		if t.Data == nil && t.core != nil {
			if err := s.use(t); err != nil {
				return nil, err
			}
			if t.core == s.first() {
				given[i].Record = t.record
				continue
			}
			data, err := t.Bytes()
			if err != nil {
				return nil, err
			}
			given[i].Data = data
			continue
		}
		given[i].Data = t.Data
	}
	return given, nil
}

// SetMetadata replaces all metadata of a .safetensors file without rewriting its
// tensors; nil removes it. On file systems that share blocks (xfs, btrfs) the
// file is replaced at no cost. Elsewhere the header can only be overwritten
// where it is, if it fits (see HeaderReserve) and InPlace allows it. Options may
// be nil.
//
// Errors: [ErrBufferSize] where the header does not fit, [ErrUnsupported] where
// it would have to be overwritten, those of [OpenWith], and [ErrIO].
func SetMetadata(path string, metadata map[string]string, options *MetadataOptions) error {
	if err := compatible(); err != nil {
		return err
	}
	if err := withoutNUL(path); err != nil {
		return err
	}
	if options == nil {
		options = &MetadataOptions{}
	}
	return failed(cst.SetMetadata(path, metadata, options.InPlace, int32(options.Sync)), nil)
}

// MetadataOptions says how to change metadata.
type MetadataOptions struct {
	// InPlace: where the file system can't share blocks, overwrite the header
	// where it is. A crash of the system in that moment can leave old and new
	// text mixed, and then no tensor in the file can be found again, though their
	// bytes are whole: have a copy of the header.
	InPlace bool
	Sync    Sync
}
