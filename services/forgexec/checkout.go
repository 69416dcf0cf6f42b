package forgexec

import (
	"archive/tar"
	"bytes"
	"io"
	"path"
	"path/filepath"
	"strings"
)

// repositoryFolder is where git looks for the repository of a work tree.
const repositoryFolder = ".git"

// gitFileFolder has a file for each submodule.
const gitFileFolder = "gitfile/"

// placed is where an entry of a checkout goes: what lies below tree/ is the work
// tree, what lies below git/ its repository, and nothing of the former gets into the
// latter.
func placed(top, rest string) (string, error) {
	switch top {
	case "git":
		return path.Join(repositoryFolder, rest), nil
	case "tree":
		for part := range strings.SplitSeq(rest, "/") {
			if looksLikeRepository(part) {
				return "", refuse("the source holds %s, which git would take for a repository", quoted(rest))
			}
		}
		return rest, nil
	case strings.TrimSuffix(gitFileFolder, "/"): // which leads to the repository of a submodule
		at, err := placed("tree", rest)
		return path.Join(at, repositoryFolder), err
	default:
		return "", refuse("the source holds %s, which is neither of the work tree nor of its repository", quoted(path.Join(top, rest)))
	}
}

// gitFile writes the file that leads from the folder of a submodule to its
// repository, which is nowhere but below .git/modules.
func (u *unpacking) gitFile(name string, header *tar.Header, content io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(content, maxName+1))
	if err != nil {
		return err
	}
	at, isGitFile := strings.CutPrefix(string(text), "gitdir: ")
	at, isLine := strings.CutSuffix(at, "\n")
	repository := path.Join(path.Dir(name), at)
	if header.Typeflag != tar.TypeReg || !isGitFile || !isLine || strings.ContainsRune(at, '\n') ||
		!strings.HasPrefix(repository, repositoryFolder+"/modules/") || !filepath.IsLocal(repository) {
		return refuse("the source holds %s, which does not lead to a submodule's repository", quoted(name))
	}
	u.repositories[repository] = path.Dir(name)
	return u.file(name, &tar.Header{Size: int64(len(text))}, bytes.NewReader(text))
}

func ofRepository(name string) bool {
	return name == repositoryFolder || strings.HasPrefix(name, repositoryFolder+"/")
}

// looksLikeRepository reports whether some file system takes a name for .git, as git
// itself tells it: NTFS ignores dots and spaces at the end, what comes after a colon,
// and knows git~1; HFS+ ignores characters that nobody sees.
func looksLikeRepository(name string) bool {
	name, _, _ = strings.Cut(name, ":")
	name = strings.TrimRight(name, ". ")
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	return strings.EqualFold(name, repositoryFolder) || strings.EqualFold(name, "git~1")
}
