// Package brief bounds texts that another host has written: they are kept in memory, stored, and sent on.
package brief

import "strings"

// TextBytesMax is the most that a text may have.
const TextBytesMax = 4 << 10

// Text is the text, cut without leaving half a character if it has more than TextBytesMax bytes.
func Text(text string) string {
	if len(text) <= TextBytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:TextBytesMax], "") + "…"
}
