package image

import "testing"

func TestDownloadsOfAllBuildsShareTheRoom(t *testing.T) {
	shared := &room{}
	var all []*downloads
	for range maxDownloads / maxDownload {
		d := newDownloads(nil, t.TempDir(), shared)
		d.left, shared.used = 0, shared.used+maxDownload // it has all that it may
		all = append(all, d)
	}
	late := limited{newDownloads(nil, t.TempDir(), shared)}
	if n, err := late.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	all[0].close()
	all[0].close()
	if n, err := late.Write([]byte("x")); n != 1 || err != nil || shared.used != maxDownloads-maxDownload+1 {
		t.Errorf("wrote %d, %v; %d are used", n, err, shared.used)
	}
	late.left = 0
	if n, err := late.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("beyond its own share: wrote %d, %v", n, err)
	}
}
