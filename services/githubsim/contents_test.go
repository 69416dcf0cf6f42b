package githubsim_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func newRepository(owner, name string) githubsim.Repository {
	return githubsim.Repository{Owner: owner, Name: name, Files: map[string]string{"README.md": "# " + name + "\n"}}
}

func TestContentsAreReadAtARef(t *testing.T) {
	w := newWorld(t)
	old, err := w.sim.Head("acme", "shop", "main")
	w.must(err)
	w.commit("feature/x", map[string]string{".forge.yml": "image: busybox\n"})
	shop, ctx := w.shop(), t.Context()
	for ref, want := range map[string]string{
		"": "image: alpine\nexecute: [./ci/test.sh]\n", "main": "image: alpine\nexecute: [./ci/test.sh]\n", "feature/x": "image: busybox\n",
		"refs/heads/feature/x": "image: busybox\n", old: "image: alpine\nexecute: [./ci/test.sh]\n", old[:8]: "image: alpine\nexecute: [./ci/test.sh]\n",
	} {
		file, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", ".forge.yml", &github.RepositoryContentGetOptions{Ref: ref})
		w.must(err)
		if got, err := file.GetContent(); err != nil || got != want || file.GetType() != "file" || file.GetSize() != len(want) {
			t.Errorf("at %q: got %q, error %v", ref, got, err)
		}
	}
	_, _, _, err = shop.Repositories.GetContents(ctx, "acme", "shop", "nothing.yml", nil) //nolint:dogsled // it returns that many
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, _, _, err = shop.Repositories.GetContents(ctx, "acme", "shop", ".forge.yml", &github.RepositoryContentGetOptions{Ref: "gone"}) //nolint:dogsled // it returns that many
	wantError(t, err, http.StatusNotFound, "No commit found for the ref gone")
}

func TestFoldersAreListed(t *testing.T) {
	w := newWorld(t)
	_, err := w.sim.Commit("acme", "shop", "main", githubsim.Commit{Links: map[string]string{"link": "README.md"}})
	w.must(err)
	shop := w.shop()
	for folder, want := range map[string]string{"": ".forge.yml file, README.md file, ci dir, link symlink", "ci": "ci/test.sh file", "ci/": "ci/test.sh file"} {
		_, list, _, err := shop.Repositories.GetContents(t.Context(), "acme", "shop", folder, nil)
		w.must(err)
		var got []string
		for _, one := range list {
			got = append(got, one.GetPath()+" "+one.GetType())
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%q: got %v, want %s", folder, got, want)
		}
	}
	link, _, _, err := shop.Repositories.GetContents(t.Context(), "acme", "shop", "link", nil)
	if err != nil || link.GetTarget() != "README.md" {
		t.Errorf("got link %v, error %v", link, err)
	}
}

func TestLargeFilesComeRaw(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("0123456789abcde\n", 1<<16) + "."
	w.commit("main", map[string]string{"large": large})
	shop, ctx := w.shop(), t.Context()
	file, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", "large", nil)
	w.must(err)
	if file.GetEncoding() != "none" || file.Content == nil || *file.Content != "" || file.GetSize() != len(large) {
		t.Errorf("got encoding %q, size %d", file.GetEncoding(), file.GetSize())
	}
	raw, err := shop.NewRequest(http.MethodGet, "repos/acme/shop/contents/large", nil)
	w.must(err)
	raw.Header.Set("Accept", "application/vnd.github.raw+json")
	var got strings.Builder
	if _, err := shop.Do(ctx, raw, &got); err != nil || got.String() != large {
		t.Errorf("got %d bytes, error %v", got.Len(), err)
	}
	body, _, err := shop.Repositories.DownloadContents(ctx, "acme", "shop", "large", nil)
	w.must(err)
	defer body.Close()
	if downloaded, err := io.ReadAll(body); err != nil || string(downloaded) != large {
		t.Errorf("downloaded %d bytes, error %v", len(downloaded), err)
	}
}

func TestTarballIsGits(t *testing.T) {
	w := newWorld(t)
	head, err := w.sim.Commit("acme", "shop", "main", githubsim.Commit{
		Files: map[string]string{"ci/test.sh": "exit 1 # a script keeps its mode\n", "../evil": "outside\n"},
		Links: map[string]string{"link": "README.md"}, Delete: []string{".forge.yml"},
	})
	w.must(err)
	link, _, err := w.shop().Repositories.GetArchiveLink(t.Context(), "acme", "shop", github.Tarball, &github.RepositoryContentGetOptions{Ref: head}, 0)
	w.must(err)
	got, comment := untar(t, link)
	top := "acme-shop-" + head[:7] + "/"
	want := map[string]entry{
		top: {mode: 0o775}, top + "ci/": {mode: 0o775}, top + "README.md": {mode: 0o664, content: "# Shop\n"},
		top + "ci/test.sh": {mode: 0o775, content: "exit 1 # a script keeps its mode\n"},
		top + "link":       {mode: 0o777, link: "README.md"}, top + "../evil": {mode: 0o664, content: "outside\n"},
	}
	if comment != head {
		t.Errorf("got comment %q, want the commit %s", comment, head)
	}
	for name, one := range want {
		if got[name] != one {
			t.Errorf("%s: got %+v, want %+v", name, got[name], one)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
}

func TestTarballAddressesEnd(t *testing.T) {
	w := newWorld(t)
	shop, ctx := w.shop(), t.Context()
	link, _, err := shop.Repositories.GetArchiveLink(ctx, "acme", "shop", github.Tarball, nil, 0)
	w.must(err)
	forged := *link
	forged.Path = strings.Replace(link.Path, "shop", "other", 1)
	stale := *link
	for name, address := range map[string]*url.URL{"another path": &forged, "too late": &stale, "no token": {Scheme: "http", Host: link.Host, Path: link.Path}} {
		if name == "too late" {
			w.clock.advance(10 * time.Minute)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
		w.must(err)
		answer, err := http.DefaultClient.Do(request)
		w.must(err)
		answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %s", name, answer.Status)
		}
	}
	_, answer, err := shop.Repositories.GetArchiveLink(ctx, "acme", "shop", github.Tarball, &github.RepositoryContentGetOptions{Ref: "gone"}, 0)
	if err == nil || answer.StatusCode != http.StatusNotFound {
		t.Errorf("unknown ref: got error %v", err)
	}
}

type entry struct {
	mode          int64
	content, link string
}

func untar(t *testing.T, link *url.URL) (entries map[string]entry, comment string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	packed, err := gzip.NewReader(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	entries = map[string]entry{}
	for archive := tar.NewReader(packed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries, comment
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			comment = header.PAXRecords["comment"]
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = entry{mode: header.Mode, content: string(content), link: header.Linkname}
	}
}

func TestBranchesAndRefsAreFound(t *testing.T) {
	w := newWorld(t)
	tip := w.commit("feature/x", map[string]string{"x": "x"})
	shop, ctx := w.shop(), t.Context()
	branches, _, err := shop.Repositories.ListBranches(ctx, "acme", "shop", nil)
	w.must(err)
	if len(branches) != 2 || branches[0].GetName() != "feature/x" || branches[0].GetCommit().GetSHA() != tip {
		t.Errorf("got %v", branches)
	}
	branch, _, err := shop.Repositories.GetBranch(ctx, "acme", "shop", "feature/x", 0)
	if err != nil || branch.GetCommit().GetSHA() != tip {
		t.Errorf("got %v, error %v", branch, err)
	}
	if _, answer, err := shop.Repositories.GetBranch(ctx, "acme", "shop", "production", 0); err == nil || answer.StatusCode != http.StatusNotFound {
		t.Errorf("unknown branch: got error %v", err)
	}
	ref, _, err := shop.Git.GetRef(ctx, "acme", "shop", "heads/feature/x")
	if err != nil || ref.GetRef() != "refs/heads/feature/x" || ref.GetObject().GetSHA() != tip {
		t.Errorf("got %v, error %v", ref, err)
	}
	_, _, err = shop.Git.GetRef(ctx, "acme", "shop", "heads/gone")
	wantError(t, err, http.StatusNotFound, "Not Found")
	refs, _, err := shop.Git.ListMatchingRefs(ctx, "acme", "shop", &github.ReferenceListOptions{Ref: "heads/fea"})
	if err != nil || len(refs) != 1 {
		t.Errorf("got %v, error %v", refs, err)
	}
	repo, _, err := shop.Repositories.Get(ctx, "ACME", "Shop")
	w.must(err)
	byID, _, err := shop.Repositories.GetByID(ctx, repo.GetID())
	if err != nil || byID.GetFullName() != "acme/shop" || !byID.GetPrivate() || byID.GetOwner().GetType() != "Organization" {
		t.Errorf("got %v, error %v", byID, err)
	}
}

func TestCommitsAreComparedAndShown(t *testing.T) {
	w := newWorld(t)
	first := w.commit("feature/x", map[string]string{"x": "1\n2\n"})
	second := w.commit("feature/x", map[string]string{"x": "1\n3\n4\n", "README.md": "# Store\n"})
	w.commit("main", map[string]string{"other": ""})
	shop, ctx := w.shop(), t.Context()
	diff, _, err := shop.Repositories.CompareCommits(ctx, "acme", "shop", "main", "feature/x", nil)
	w.must(err)
	if diff.GetStatus() != "diverged" || diff.GetAheadBy() != 2 || diff.GetBehindBy() != 1 || diff.GetTotalCommits() != 2 || len(diff.Files) != 2 {
		t.Errorf("got %v", diff)
	}
	if len(diff.Commits) != 2 || diff.Commits[0].GetSHA() != first || diff.Commits[1].GetSHA() != second {
		t.Errorf("got commits %v", diff.Commits)
	}
	paged, _, err := shop.Repositories.CompareCommits(ctx, "acme", "shop", "main", "feature/x", &github.ListOptions{Page: 2, PerPage: 1})
	if err != nil || len(paged.Files) != 0 || len(paged.Commits) != 1 {
		t.Errorf("files come on the first page alone: got %v, error %v", paged, err)
	}
	_, _, err = shop.Repositories.CompareCommits(ctx, "acme", "shop", "main", "gone", nil)
	wantError(t, err, http.StatusNotFound, "Not Found")

	commit, _, err := shop.Repositories.GetCommit(ctx, "acme", "shop", "feature/x", nil)
	w.must(err)
	if commit.GetSHA() != second || len(commit.Files) != 2 || commit.Files[1].GetFilename() != "x" || commit.Files[1].GetAdditions() != 2 || commit.Files[1].GetDeletions() != 1 {
		t.Errorf("got %v", commit)
	}
	sha, _, err := shop.Repositories.GetCommitSHA1(ctx, "acme", "shop", "feature/x", "")
	if err != nil || sha != second {
		t.Errorf("got sha %q, error %v", sha, err)
	}
	_, _, err = shop.Repositories.GetCommit(ctx, "acme", "shop", "gone", nil)
	wantError(t, err, http.StatusUnprocessableEntity, "No commit found for SHA: gone")
}
