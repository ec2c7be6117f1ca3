package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/umbra-dr/umbra/controlplane/store"
)

// State is what a control plane works with and a backup holds.
type State struct {
	Records *store.Store
	// Dir is the state folder.
	Dir string
}

// passedOver is what in the state folder is no file of ours to save: the embedded etcd, whose records are saved as such, and its lock.
var passedOver = map[string]bool{"etcd": true, "lock": true, restoring: true}

// restoring is a file in the state folder while a restore goes on.
const restoring = "RESTORE-NOT-FINISHED"

const dirMode = 0o700

// Save writes a backup while the control plane works.
func (s State) Save(ctx context.Context, to io.Writer, version string, now time.Time) error {
	w, err := NewWriter(to, version, now)
	if err != nil {
		return err
	}
	if _, err := s.Records.Backup(ctx, w.Record); err != nil {
		return err
	}
	err = filepath.WalkDir(s.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.Dir, path)
		switch {
		case err != nil:
			return err
		case passedOver[name] && entry.IsDir():
			return fs.SkipDir
		case passedOver[name] || !entry.Type().IsRegular():
			return nil
		default:
			return saveFile(w, path, name)
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // with an external etcd there may be no folder
		return fmt.Errorf("saving the state folder: %w", err)
	}
	return w.Close()
}

func saveFile(w *Writer, path, name string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return w.File(name, info.Mode(), io.LimitReader(file, info.Size())) // what is appended meanwhile belongs to the next backup
}

// CheckDir refuses a state folder in which a restore was begun and has not ended.
func CheckDir(dir string) error {
	_, err := os.Stat(filepath.Join(dir, restoring))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking into the state folder: %w", err)
	default:
		return fmt.Errorf("a restore into %s was begun and has not ended: empty the folder, and restore again", dir)
	}
}

// PrepareDir makes an empty state folder one that is being restored into. One that is not empty is refused.
func PrepareDir(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("making the state folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking into the state folder: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() != "lost+found" {
			return fmt.Errorf("the state folder %s is not empty (%s is there): what is in it would be lost. Move it away, or name another folder", dir, entry.Name())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, restoring), nil, 0o600); err != nil {
		return fmt.Errorf("beginning the restore: %w", err)
	}
	return nil
}

// Load takes a backup in: its files into the folder, which PrepareDir has prepared, its records into the store, which is empty. It returns how many
// pairs there are. What an error leaves behind is of no use.
func (s State) Load(ctx context.Context, from io.Reader) (pairs int, err error) {
	empty, err := s.Records.Empty(ctx)
	if err != nil {
		return 0, err
	}
	if !empty {
		return 0, errors.New("etcd has records of a control plane already: they would be mixed with those of the backup")
	}
	restoration := s.Records.Restore()
	_, err = Read(from, func(item store.Item) error { return restoration.Put(ctx, item) }, s.write)
	if err != nil {
		return 0, err
	}
	return restoration.Pairs, restoration.End(ctx)
}

// write adds a part to its file.
func (s State) write(part Part) (err error) {
	path := filepath.Join(s.Dir, part.Name)
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return fmt.Errorf("restoring the state folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, part.Mode.Perm())
	if err != nil {
		return fmt.Errorf("restoring the state folder: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(part.Content); err != nil {
		return fmt.Errorf("restoring %s: %w", part.Name, err)
	}
	return file.Sync()
}

// FinishDir ends a restore: the folder is the control plane's from now on. Everything in it gets the folder's owner.
func FinishDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("ending the restore: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && owner.Uid != 0 {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, int(owner.Uid), int(owner.Gid)))
		})
		if err != nil {
			return fmt.Errorf("giving the state folder to its owner: %w", err)
		}
	}
	if err := os.Remove(filepath.Join(dir, restoring)); err != nil {
		return fmt.Errorf("ending the restore: %w", err)
	}
	return nil
}
