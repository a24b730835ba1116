package detect

// Fold appends the pattern of a channel name to dst: what looks like an id is
// written as *, so that private-user-123 and private-user-456 are both
// private-user-*. It allocates only if dst is too short, and looks at no more
// than the first 200 bytes, the longest name that Pusher allows for a channel
// (https://pusher.com/docs/channels/using_channels/channels/).
//
// A part between separators (- _ . : / @ = , ;) is an id when it has a digit
// and is hexadecimal of 8 characters or more, or half of it or more is digits,
// or it has 12 characters or more; and, digits or not, when it has 24 or more.
// Digits in other parts become * alone (oauth2 is oauth*). Neighbouring ids become one
// (so a UUID is one *).
func Fold(dst []byte, channel string) []byte {
	if len(channel) > 200 {
		channel = channel[:200]
	}
	base := len(dst)
	for i := 0; i < len(channel); {
		start, digits, seen := i, 0, uint8(0)
		for ; i < len(channel); i++ {
			k := kind[channel[i]]
			if k&separator != 0 {
				break
			}
			digits += int(k & digit)
			seen |= k
		}
		hex := seen&letter == 0
		n := i - start
		switch {
		case digits == 0 && n < 24:
			dst = append(dst, channel[start:i]...)
		case digits == 0, hex && n >= 8, 2*digits >= n, n >= 12:
			// Join with an id before the separator.
			if m := len(dst); m-base >= 2 && dst[m-2] == '*' && kind[dst[m-1]] == separator && (m-base == 2 || kind[dst[m-3]] == separator) {
				dst = dst[:m-1]
			} else {
				dst = append(dst, '*')
			}
		default:
			for j := start; j < i; j++ {
				if kind[channel[j]] != digit {
					dst = append(dst, channel[j])
				} else if j == start || kind[channel[j-1]] != digit {
					dst = append(dst, '*')
				}
			}
		}
		if i < len(channel) {
			dst = append(dst, channel[i])
			i++
		}
	}
	return dst
}

// What a byte is; one that is not a digit, a separator or a letter of
// hexadecimal is a letter.
const (
	digit = 1 << iota
	letter
	separator
)

// kind classes the bytes of channel names.
var kind = func() (k [256]uint8) {
	for c := range k {
		k[c] = letter
	}
	for c := '0'; c <= '9'; c++ {
		k[c] = digit
	}
	for _, c := range "abcdefABCDEF" {
		k[c] = 0
	}
	for _, c := range "-_.:/@=,;" {
		k[c] = separator
	}
	return k
}()
