package web

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// Where the nodes of a graph stand, in pixels.
const (
	nodeWidth, nodeHeight = 190, 46
	nodeStepX, nodeStepY  = nodeWidth + 56, nodeHeight + 14
	nodeLetters           = 22 // of a name that fit in
)

// graph shows which jobs wait for which: a node for each name of a job, with the cells
// of its matrix in it, each to the right of those that it needs.
type graph struct {
	Width, Height int
	Nodes         []node
	Edges         []string // the paths of lines, as an SVG has them
}

type node struct {
	X, Y  int
	Name  string // as long as fits
	Whole string
	State string
	Text  string // its state, or how many of its cells are in which
	Job   string // the id of its job; empty where it has several
	First string // the id of its first job

	depth int
	needs []string
}

// graphOf is nil where no job needs another.
func graphOf(jobs []*schedulerv1.Job) *graph {
	if !slices.ContainsFunc(jobs, func(j *schedulerv1.Job) bool { return len(j.GetNeeds()) > 0 }) {
		return nil
	}
	var names []string
	cells := map[string][]*schedulerv1.Job{}
	for _, job := range jobs {
		if cells[job.GetName()] == nil {
			names = append(names, job.GetName())
		}
		cells[job.GetName()] = append(cells[job.GetName()], job)
	}
	g, at := &graph{}, map[string]*node{}
	rows := map[int]int{} // of each depth
	for len(at) < len(names) {
		before := len(at)
		for _, name := range names {
			depth, ready := 0, at[name] == nil
			for _, need := range cells[name][0].GetNeeds() {
				if cells[need] == nil {
					continue // it belongs to another build, as it may after a retry
				}
				ready = ready && at[need] != nil
				if at[need] != nil {
					depth = max(depth, at[need].depth+1)
				}
			}
			if !ready {
				continue
			}
			made := nodeOf(name, cells[name])
			made.depth, made.X, made.Y = depth, depth*nodeStepX, rows[depth]*nodeStepY
			rows[depth]++
			at[name] = &made
			g.Width, g.Height = max(g.Width, made.X+nodeWidth), max(g.Height, made.Y+nodeHeight)
		}
		if len(at) == before {
			return nil // a circle, which no valid file has
		}
	}
	for _, name := range names {
		to := at[name]
		for _, need := range to.needs {
			if from := at[need]; from != nil {
				x, y := from.X+nodeWidth, from.Y+nodeHeight/2
				toY := to.Y + nodeHeight/2
				middle := (x + to.X) / 2
				g.Edges = append(g.Edges, fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x, y, middle, y, middle, toY, to.X, toY))
			}
		}
		g.Nodes = append(g.Nodes, *to)
	}
	return g
}

func nodeOf(name string, cells []*schedulerv1.Job) node {
	made := node{Name: name, Whole: name, needs: cells[0].GetNeeds(), First: cells[0].GetId(), State: wording.Value(worst(cells))}
	if utf8.RuneCountInString(name) > nodeLetters {
		made.Name = string([]rune(name)[:nodeLetters-1]) + "…"
	}
	if len(cells) == 1 {
		made.Job, made.Text = cells[0].GetId(), made.State
		return made
	}
	var counts []string
	for _, state := range statesByWeight() {
		n := 0
		for _, cell := range cells {
			if cell.GetState() == state {
				n++
			}
		}
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, wording.Value(state)))
		}
	}
	made.Text = strings.Join(counts[:min(2, len(counts))], ", ")
	return made
}

// statesByWeight are the states of jobs, those first that say most of several.
func statesByWeight() []schedulerv1.Build_State {
	return []schedulerv1.Build_State{
		schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_STATE_RUNNING,
		schedulerv1.Build_STATE_STARTING, schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING,
		schedulerv1.Build_STATE_PASSED, schedulerv1.Build_STATE_CANCELLED,
	}
}

func worst(cells []*schedulerv1.Job) schedulerv1.Build_State {
	for _, state := range statesByWeight() {
		if slices.ContainsFunc(cells, func(j *schedulerv1.Job) bool { return j.GetState() == state }) {
			return state
		}
	}
	return cells[0].GetState()
}
