package rpc

import (
	"cmp"
	"encoding/base64"
	"encoding/json"

	"github.com/forge-ci/forge/services/kit/fault"
)

// LargestPage is how many items a page of a list has at most.
const LargestPage = 500

const usualPage = 50

// PageSize is how many items a page has: as many as were asked for, 50 where that is 0, and LargestPage at most.
func PageSize(asked int32) (int, error) {
	if asked < 0 {
		return 0, fault.Newf(fault.Invalid, "page_size is %d: expected 1 to %d, or 0 for %d", asked, LargestPage, usualPage)
	}
	return min(cmp.Or(int(asked), usualPage), LargestPage), nil
}

// PageToken asks for the page after the item with this key, of one or more strings and integers.
func PageToken(key ...any) string {
	text, err := json.Marshal(key)
	if err != nil {
		panic("rpc: a page's key is of strings and integers: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// CutPage is a page of what was found, of which one more than the page has tells that there is another. The token is for
// the page after the last item, which key gives it the key of; it is empty where that was all.
func CutPage[T any](found []T, size int, key func(last T) []any) (page []T, next string) {
	if len(found) <= size {
		return found, ""
	}
	return found[:size], PageToken(key(found[size-1])...)
}

// ParsePageToken reads the key out of a token into pointers to what PageToken was given. The token of the first page,
// which is empty, leaves them as they are.
func ParsePageToken(token string, key ...any) error {
	if token == "" {
		return nil
	}
	var parts []json.RawMessage
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(text, &parts)
	}
	if err != nil || len(parts) != len(key) {
		return errForeignToken()
	}
	for i, into := range key {
		if string(parts[i]) == "null" || json.Unmarshal(parts[i], into) != nil {
			return errForeignToken()
		}
	}
	return nil
}

func errForeignToken() error { return fault.New(fault.Invalid, "page_token is not one of ours") }
