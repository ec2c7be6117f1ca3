package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rowSet is a choice of rows; the empty one is all of them.
type rowSet []int

// String and Set make it a flag.
func (s *rowSet) String() string { return strings.Trim(fmt.Sprint([]int(*s)), "[]") }

// Set reads numbers with commas between.
func (s *rowSet) Set(text string) error {
	for _, word := range strings.Split(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil {
			return fmt.Errorf("%q is no row", word)
		}
		*s = append(*s, n)
	}
	return nil
}

func (s rowSet) has(number int) bool { return len(s) == 0 || slices.Contains(s, number) }
