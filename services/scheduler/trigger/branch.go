package trigger

import "strings"

// BranchOfRef is the branch that a full ref is of; "" where it is none, as with tags, or
// one that a merge queue has made for itself.
func BranchOfRef(ref string) string {
	name, is := strings.CutPrefix(ref, BranchRef)
	if !is || strings.HasPrefix(ref, QueueRef) {
		return ""
	}
	return name
}

// HeadBranch is the branch that the commit is on; of a fork's pull request behind the
// fork's owner and a colon, as GitHub has it. "": there is none, or it is not known.
func (i Intent) HeadBranch() string {
	if name := BranchOfRef(i.Ref); name != "" {
		return name
	}
	head := i.Pull.GetHead()
	if i.Branch != "" || head.GetRef() == "" || !strings.HasPrefix(i.Ref, "refs/pull/") {
		return i.Branch
	}
	if !i.Fork {
		return head.GetRef()
	}
	owner := head.GetRepository().GetOwner()
	if owner == "" { // the fork was deleted
		return ""
	}
	return owner + ":" + head.GetRef()
}
