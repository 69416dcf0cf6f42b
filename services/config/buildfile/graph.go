package buildfile

import (
	"slices"
	"strings"
)

// checkNeeds checks what the jobs of a pipeline need of each other.
func (p *pipeline) checkNeeds(f *file) {
	byName := map[string]*draft{}
	cleaned := map[string]string{}
	names := make([]string, len(p.drafts))
	for i, d := range p.drafts {
		names[i] = d.name
		byName[d.name] = d
		variable := clean(d.name)
		if first, ok := cleaned[variable]; ok {
			f.complainf(d.key, "%s: %s and %s are both NEEDS_%s_… to the jobs that need them: give one another name", p.path, clip(first), clip(d.name), variable)
		}
		cleaned[variable] = d.name
	}
	known := true
	for _, d := range p.drafts {
		if len(f.problems) >= enough {
			return
		}
		for _, one := range d.needs {
			switch {
			case one.name == d.name:
				f.complainf(one.n, "%s.needs: a job cannot need itself", d.path)
				known = false
			case byName[one.name] == nil:
				f.complainf(one.n, "%s.needs: there is no job %q here%s", d.path, clip(one.name), otherJob(f, one.name, d.name, names))
				known = false
			}
		}
	}
	if known {
		p.cycle(f, byName)
	}
	p.handedOn(f, byName)
}

func otherJob(f *file, name, self string, names []string) string {
	others := slices.DeleteFunc(slices.Clone(names), func(other string) bool { return other == self })
	if len(others) == 0 {
		return ", nor any other"
	}
	return strings.Replace(f.didYouMean(name, others), "it has", "the others are", 1)
}

// cycle complains of the first way round that needs take.
func (p *pipeline) cycle(f *file, byName map[string]*draft) {
	ended := map[string]bool{}
	var way []*draft
	var visit func(d *draft) bool
	visit = func(d *draft) bool {
		way = append(way, d)
		for _, one := range d.needs {
			if at := slices.Index(way, byName[one.name]); at >= 0 {
				f.complainf(one.n, "%s.needs: none of these could begin: %s: take one of the needs out", d.path, round(way[at:]))
				return true
			}
			if !ended[one.name] && visit(byName[one.name]) {
				return true
			}
		}
		way = way[:len(way)-1]
		ended[d.name] = true
		return false
	}
	for _, d := range p.drafts {
		if !ended[d.name] && visit(d) {
			return
		}
	}
}

// round is a way round in words.
func round(way []*draft) string {
	const most = 10
	var text strings.Builder
	text.WriteString(clip(way[0].name))
	for i, d := range append(slices.Clone(way[1:]), way[0]) {
		switch {
		case i > 0 && i < most:
			text.WriteString(", which")
		case i == most:
			text.WriteString(", and so on, until one")
		case i > most && i < len(way)-1:
			continue
		}
		if i < most || i == len(way)-1 {
			text.WriteString(" needs " + clip(d.name))
		}
	}
	return text.String()
}

// handedOn checks that no two outputs come to a job under one name, and tells each cell
// which of them are images.
func (p *pipeline) handedOn(f *file, byName map[string]*draft) {
	for _, d := range p.drafts {
		from := map[string]string{}
		for _, one := range d.needs {
			needed := byName[one.name]
			if needed == nil {
				continue
			}
			for _, output := range needed.job.GetOutputs() {
				variable := "NEEDS_" + clean(needed.name) + "_" + output
				if first, ok := from[variable]; ok && first != needed.name {
					f.complainf(one.n, "%s.needs: outputs of %s and of %s are both %s: give one another name", d.path, clip(first), clip(needed.name), clip(variable))
				}
				from[variable] = needed.name
			}
			for _, output := range needed.handsOn() {
				for _, c := range d.cells {
					c.built = append(c.built, "NEEDS_"+clean(needed.name)+"_"+output)
				}
			}
		}
	}
}
