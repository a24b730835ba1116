package config

import "strings"

// didYouMean is `did you mean "x"?` when one of known is near enough to what
// was written to be meant, and otherwise the text of last resort.
func didYouMean(written string, known []string, otherwise string) string {
	if best, ok := nearest(written, known); ok {
		return `did you mean "` + best + `"?`
	}
	return otherwise
}

// Nearest is the known word that was probably meant, if one is near enough.
func Nearest(written string, known []string) (string, bool) { return nearest(written, known) }

// nearest finds the known word with the least edit distance, if that is at
// most a third of its length (and one edit is always near).
func nearest(written string, known []string) (string, bool) {
	if len(written) > 64 {
		return "", false
	}
	written = strings.ToLower(written)
	best, least := "", -1
	for _, k := range known {
		d := editDistance(written, strings.ToLower(k))
		if d <= max(1, len(k)/3) && (least < 0 || d < least) {
			best, least = k, d
		}
	}
	return best, least >= 0
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that make b of a (optimal string alignment).
func editDistance(a, b string) int {
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
