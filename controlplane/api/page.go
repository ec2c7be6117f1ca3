package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
)

const (
	pageSizeDefault = 100
	pageSizeMax     = 1000
)

// pageSize is how many items to return. A negative size has been refused by then.
func pageSize(asked int32) int {
	switch {
	case asked <= 0:
		return pageSizeDefault
	case asked > pageSizeMax:
		return pageSizeMax
	default:
		return int(asked)
	}
}

// pageToken is what a page token says: after which item the next page begins, and of which list.
type pageToken struct {
	List  []byte `json:"l"`
	After string `json:"a"`
}

// listID tells lists apart: the method, and what narrows the list.
func listID(parts ...string) []byte {
	encoded, _ := json.Marshal(parts) // strings always marshal
	sum := sha256.Sum256(encoded)
	return sum[:8]
}

func nextPage(list []byte, after string) string {
	encoded, _ := json.Marshal(pageToken{List: list, After: after}) // bytes and strings always marshal
	return base64.RawURLEncoding.EncodeToString(encoded)
}

// afterPage returns where the page with this token begins; "" for the first. A token of another list is refused.
func afterPage(list []byte, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	var read pageToken
	encoded, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(encoded, &read)
	}
	switch {
	case err != nil || read.After == "":
		return "", invalid("page_token", "is not a next_page_token of this list")
	case string(read.List) != string(list):
		return "", invalid("page_token", "belongs to another list, or to another filter")
	default:
		return read.After, nil
	}
}
