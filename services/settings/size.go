package settings

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes, written such as 512MiB or 4GiB.
type Size int64

// UnmarshalText reads a size as people write it.
func (s *Size) UnmarshalText(text []byte) error {
	size, err := humanize.ParseBytes(string(text))
	if err != nil || size > math.MaxInt64 {
		return fmt.Errorf("%q is not a size: expected one such as 512MiB or 4GiB", text)
	}
	*s = Size(size)
	return nil
}
