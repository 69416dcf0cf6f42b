// Package nearest finds the name that somebody probably meant.
package nearest

// Name is the known name that takes the fewest changes to become the given one, the first of equals: at most the given
// number of letters changed, added or dropped, and fewer than it has. It is "" where no name is as near.
func Name(name string, known []string, most int) string {
	best, least := "", most+1
	for _, candidate := range known {
		if d := distance(name, candidate, least); d < min(least, len(candidate)) {
			best, least = candidate, d
		}
	}
	return best
}

// distance is the number of letters to change, add or drop between a and b (Levenshtein), or most if that is less.
func distance(a, b string, most int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], most)
}
