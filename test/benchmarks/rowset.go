package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rowSet is a choice of rows, in an order; the empty one is all of them.
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

// choose returns the chosen rows in the order of the choice, which is the order in which they are run.
func (s rowSet) choose(all []row) (chosen []row) {
	if len(s) == 0 {
		return all
	}
	for _, number := range s {
		if at := slices.IndexFunc(all, func(r row) bool { return r.number == number }); at >= 0 {
			chosen = append(chosen, all[at])
		}
	}
	return chosen
}
