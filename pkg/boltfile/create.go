package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// newSuffix marks a database that is being made. One that a crash left behind is removed by the next Open.
const newSuffix = ".new-"

// create makes a database under another name and makes it durable before it gets its own. bbolt alone writes the first pages
// into the file that it opens: after a power loss between them the file is there, and never opens again.
func create(path string, mode os.FileMode) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix)
	if err != nil {
		return err
	}
	aside := file.Name()
	defer func() {
		if removed := os.Remove(aside); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}()
	if err := errors.Join(file.Chmod(mode), file.Close()); err != nil {
		return err
	}
	db, err := bbolt.Open(aside, mode, &bbolt.Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(db.Sync(), db.Close()); err != nil {
		return err
	}
	// A link, since it never replaces a database that another process made meanwhile; that one may have removed ours.
	if err := os.Link(aside, path); err != nil {
		if _, statErr := os.Stat(path); statErr != nil {
			return errors.Join(err, statErr)
		}
	}
	return syncDir(filepath.Dir(path))
}

// removeUnfinished removes what a crash left of making the database. The caller has its lock.
func removeUnfinished(path string) error {
	left, err := filepath.Glob(path + newSuffix + "*")
	if err != nil {
		return fmt.Errorf("look for unfinished databases: %w", err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove unfinished database: %w", err)
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
