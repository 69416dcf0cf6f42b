package buildfile

import "strings"

const maxTitle = 100 // characters

// entitle names the cells of a job, no two of them alike.
func (d *draft) entitle(f *file) {
	seen := map[string]bool{}
	for _, c := range d.cells {
		c.title = d.name
		if len(c.values) > 0 {
			shown := make([]string, len(c.values))
			for i, v := range c.values {
				if shown[i] = v.GetValue(); shown[i] == "" {
					shown[i] = `""`
				}
			}
			c.title += " (" + strings.Join(shown, ", ") + ")"
		}
		if runes := []rune(c.title); len(runes) > maxTitle {
			c.title = string(runes[:maxTitle-2]) + "…)"
		}
		if seen[c.title] {
			f.complainf(d.matrix, "%s.matrix: two cells are both called %q: their values must tell them apart, within the first %d characters", d.path, c.title, maxTitle)
			return
		}
		seen[c.title] = true
	}
}
