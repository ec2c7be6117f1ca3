// Package backup is the file that the control plane's state is saved in and restored from: all records in etcd, the authority and its key
// among them, and the files of the state folder.
//
// The file is gzip of JSON, one object a line: a header with the format's version, then records and parts of files in any order, then an end with how
// many there are and the SHA-256 of everything before it. So it can be read with stock tools, it is known to be whole before anything
// of it is used, and it does not depend on the version of etcd, or on whether that is inside the process.
package backup

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/umbra-dr/umbra/controlplane/store"
)

// Format is the version of the format that is written. Earlier ones are read, later ones are refused.
const Format = 1

const (
	// partBytes is how much of a file is in one line.
	partBytes = 1 << 20
	// lineBytesMax bounds a line. etcd takes values of 1.5 MiB; in JSON they are a third longer.
	lineBytesMax = 8 << 20
)

var (
	// ErrDamaged says that the file is not whole, or was altered.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrNewer says that the file was written by a newer control plane.
	ErrNewer = errors.New("the backup was written by a newer control plane: restore it with that version, or a later one")
)

// Header says what the file is. Revision is the one of etcd at which the records were read.
type Header struct {
	Format  int       `json:"umbra_backup"`
	Version string    `json:"version"` // of the control plane that wrote it
	Time    time.Time `json:"time"`
}

// Part is a part of a file of the state folder. The parts of a file are in order.
type Part struct {
	// Name is relative to the state folder.
	Name    string      `json:"name"`
	Mode    fs.FileMode `json:"mode"`
	Content []byte      `json:"content"`
}

type end struct {
	Records int    `json:"records"`
	Parts   int    `json:"parts"`
	SHA256  string `json:"sha256"`
}

// line is one line; one of the fields is set.
type line struct {
	*Header
	Record *store.Item `json:"record,omitempty"`
	Part   *Part       `json:"file,omitempty"`
	End    *end        `json:"end,omitempty"`
}

// Writer writes a backup. Its methods are for one goroutine.
type Writer struct {
	compressed *gzip.Writer
	sum        hash.Hash
	end        end
}

// NewWriter begins a backup.
func NewWriter(to io.Writer, version string, now time.Time) (*Writer, error) {
	w := &Writer{compressed: gzip.NewWriter(to), sum: sha256.New()}
	return w, w.write(line{Header: &Header{Format: Format, Version: version, Time: now}})
}

func (w *Writer) write(l line) error {
	data, err := json.Marshal(l)
	if err == nil {
		data = append(data, '\n')
		w.sum.Write(data)
		_, err = w.compressed.Write(data)
	}
	if err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	return nil
}

// Record adds a record.
func (w *Writer) Record(item store.Item) error {
	w.end.Records++
	return w.write(line{Record: &item})
}

// File adds a file of the state folder. An empty one has one empty part.
func (w *Writer) File(name string, mode fs.FileMode, content io.Reader) error {
	buffer := make([]byte, partBytes)
	for first := true; ; first = false {
		n, err := io.ReadFull(content, buffer)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading %s for the backup: %w", name, err)
		}
		if n > 0 || first {
			w.end.Parts++
			if err := w.write(line{Part: &Part{Name: name, Mode: mode.Perm(), Content: buffer[:n]}}); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// Close ends the backup. Without it the file is not whole.
func (w *Writer) Close() error {
	w.end.SHA256 = hex.EncodeToString(w.sum.Sum(nil))
	if err := w.write(line{End: &w.end}); err != nil {
		return err
	}
	if err := w.compressed.Close(); err != nil {
		return fmt.Errorf("ending the backup: %w", err)
	}
	return nil
}

// Read calls record and part with what the backup holds, and returns its header. What it has called them with counts only when it returns
// no error. Errors: ErrDamaged, ErrNewer, those of record and part.
func Read(from io.Reader, record func(store.Item) error, part func(Part) error) (Header, error) {
	compressed, err := gzip.NewReader(from)
	if err != nil {
		return Header{}, fmt.Errorf("%w: it is not compressed as a backup is: %w", ErrDamaged, err)
	}
	r := &reader{lines: bufio.NewReaderSize(compressed, partBytes), sum: sha256.New()}
	first, err := r.next()
	switch {
	case err != nil:
		return Header{}, err
	case first.Header == nil || first.Format < 1:
		return Header{}, fmt.Errorf("%w: it does not begin as a backup does", ErrDamaged)
	case first.Format > Format:
		return *first.Header, fmt.Errorf("%w (format %d, known is %d; written by version %s)", ErrNewer, first.Format, Format, first.Version)
	}
	for {
		l, err := r.next()
		switch {
		case err != nil:
			return *first.Header, err
		case l.Record != nil:
			r.seen.Records++
			err = record(*l.Record)
		case l.Part != nil:
			r.seen.Parts++
			if !filepath.IsLocal(l.Part.Name) {
				return *first.Header, fmt.Errorf("%w: a file lies outside of the state folder: %q", ErrDamaged, l.Part.Name)
			}
			err = part(*l.Part)
		case l.End != nil:
			return *first.Header, r.finish(*l.End)
		default:
			err = fmt.Errorf("%w: it holds something that is not known", ErrDamaged)
		}
		if err != nil {
			return *first.Header, err
		}
	}
}

type reader struct {
	lines  *bufio.Reader
	sum    hash.Hash
	before string // the sum of everything before the last line
	seen   end
}

func (r *reader) next() (line, error) {
	var data []byte
	for {
		part, err := r.lines.ReadSlice('\n')
		data = append(data, part...)
		if len(data) > lineBytesMax {
			return line{}, fmt.Errorf("%w: a line is longer than %d bytes", ErrDamaged, lineBytesMax)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line{}, fmt.Errorf("%w: it ends too early: %w", ErrDamaged, err)
		}
	}
	r.before = hex.EncodeToString(r.sum.Sum(nil))
	r.sum.Write(data)
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return line{}, fmt.Errorf("%w: a line is not JSON: %w", ErrDamaged, err)
	}
	return l, nil
}

func (r *reader) finish(said end) error {
	r.seen.SHA256 = r.before
	if said != r.seen {
		return fmt.Errorf("%w: the checksum, or the number of records, is another one", ErrDamaged)
	}
	if _, err := r.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	return nil
}
