package main

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/registration"
	"github.com/forge-ci/forge/services/wording"
)

// candidate is what a word can become.
type candidate struct{ value, help string }

// kind is what the server knows of that a word can be.
type kind int

const (
	repositories kind = iota + 1
	buildIDs
)

// completed are what the last of the words can become; known asks the server.
func completed(root *kong.Node, words []string, known func(kind) []candidate) []candidate {
	if len(words) == 0 {
		return nil
	}
	at, flag, given := walk(root, words[:len(words)-1])
	last := words[len(words)-1]
	var all []candidate
	name, value, isValue := strings.Cut(last, "=")
	switch {
	case flag != nil:
		all = several(flag.Value, last, values(flag.Value, known))
	case strings.HasPrefix(last, "--") && isValue:
		if flag := flagOf(at, name); flag != nil {
			for _, one := range several(flag.Value, value, values(flag.Value, known)) {
				all = append(all, candidate{name + "=" + one.value, one.help})
			}
		}
	case strings.HasPrefix(last, "-"):
		for _, flag := range flagsOf(at) {
			all = append(all, candidate{"--" + flag.Name, flag.Help})
		}
	default:
		for _, child := range at.Children {
			if !child.Hidden && given == 0 {
				all = append(all, candidate{child.Name, child.Help})
			}
		}
		if takes := withArguments(at); given < len(takes.Positional) {
			all = append(all, values(takes.Positional[given], known)...)
		}
	}
	return slices.DeleteFunc(all, func(c candidate) bool { return !strings.HasPrefix(c.value, last) })
}

// walk follows words to the verb that they name: how many arguments it was given, and
// the flag whose value is next.
func walk(at *kong.Node, words []string) (verb *kong.Node, flag *kong.Flag, given int) {
	for _, word := range words {
		switch name, _, whole := strings.Cut(word, "="); {
		case flag != nil:
			flag = nil
		case strings.HasPrefix(word, "-") && len(word) > 1:
			if found := flagOf(at, name); found != nil && !whole && !found.IsBool() {
				flag = found
			}
		default:
			next := slices.IndexFunc(at.Children, func(n *kong.Node) bool { return n.Name == word || slices.Contains(n.Aliases, word) })
			if next >= 0 && given == 0 {
				at = at.Children[next]
			} else {
				given++
			}
		}
	}
	return at, flag, given
}

// withArguments is the verb that takes what is not the name of one.
func withArguments(n *kong.Node) *kong.Node {
	if n.DefaultCmd != nil {
		return n.DefaultCmd
	}
	return n
}

func flagsOf(n *kong.Node) (all []*kong.Flag) {
	for _, group := range withArguments(n).AllFlags(true) {
		all = append(all, group...)
	}
	return all
}

func flagOf(n *kong.Node, word string) *kong.Flag {
	for _, flag := range flagsOf(n) {
		if word == "--"+flag.Name || slices.Contains(flag.Aliases, strings.TrimPrefix(word, "--")) || flag.Short != 0 && word == "-"+string(flag.Short) {
			return flag
		}
	}
	return nil
}

// values are what an argument or a flag can be.
func values(v *kong.Value, known func(kind) []candidate) (all []candidate) {
	placeholder := ""
	if v.Flag != nil {
		placeholder = v.Flag.PlaceHolder
	} else if v.Tag != nil {
		placeholder = v.Tag.PlaceHolder
	}
	switch {
	case v.Enum != "":
		for _, one := range v.EnumSlice() {
			if one != "" {
				all = append(all, candidate{value: one})
			}
		}
	case v.Flag != nil && closed()[v.Name] != nil:
		for _, one := range closed()[v.Name] {
			all = append(all, candidate{value: one})
		}
	case placeholder == "OWNER/NAME":
		return known(repositories)
	case v.Flag == nil && v.Name == "build":
		return known(buildIDs)
	}
	return all
}

// closed are the values of flags that have no others, or hardly any, and do not say so
// themselves: an environment can be called anything, and GitHub has more events than Forge
// asks it for.
func closed() map[string][]string {
	var events []string
	for _, event := range registration.Events() {
		events = append(events, event.Name)
	}
	return map[string][]string{
		"for":    namesOf(schedulerv1.Secret_Use_name, "USE_", "-"),
		"action": namesOf(schedulerv1.AuditEntry_Action_name, "ACTION_", "_"),
		"event":  events,
	}
}

// namesOf are the values of an enum as flags take them, in its order.
func namesOf(names map[int32]string, prefix, between string) (all []string) {
	for _, number := range slices.Sorted(maps.Keys(names)) {
		if number != 0 { // which is unspecified
			all = append(all, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(names[number], prefix)), "_", between))
		}
	}
	return all
}

// several are what the last of values with commas between them can become: each value is
// said once.
func several(v *kong.Value, typed string, all []candidate) []candidate {
	last := strings.LastIndex(typed, ",") + 1
	if last == 0 || v.Target.Kind() != reflect.Slice || v.Tag.Sep == -1 {
		return all
	}
	said, more := strings.Split(typed[:last-1], ","), []candidate(nil)
	for _, one := range all {
		if !slices.Contains(said, one.value) {
			more = append(more, candidate{typed[:last] + one.value, one.help})
		}
	}
	return more
}

// completeWithin is how long whoever presses Tab waits for a server at most.
const completeWithin = 2 * time.Second

// known asks the server; what it does not answer is not offered.
func (c complete) known(of kind) (all []candidate) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
	defer cancel()
	_ = c.session(ctx, true, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		client := schedulerv1.NewBuildServiceClient(conn)
		if of == repositories {
			found, err := client.ListRepositories(ctx, &schedulerv1.ListRepositoriesRequest{PageSize: 200})
			for _, one := range found.GetRepositories() {
				all = append(all, candidate{value: wording.FullName(one.GetRepository())})
			}
			return err
		}
		found, err := client.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{PageSize: 100})
		for _, b := range found.GetBuilds() {
			all = append(all, candidate{b.GetId(), wording.FullName(b.GetRepository()) + " " + what(b) + ", " + wording.Value(b.GetState())})
		}
		return err
	})
	return all
}
