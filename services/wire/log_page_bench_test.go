package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// BenchmarkLogPage is what the page of a build costs that has printed 200 MB and
// failed: the page itself, opened at the failure (300 ms), the first hit of a search
// (500 ms) and all of them (3 s), for a text and for an expression; and the memory of
// a browser, its renderer's alone, that has been all over the log (150 MB). The first
// page finds nothing in memory.
func BenchmarkLogPage(b *testing.B) {
	kittest.Require(b, "browser")
	const size = 200 << 20
	w := newWorld(b, nil)
	bulk := filepath.Join(w.dir, "bulk")
	var text bytes.Buffer
	for n := 0; text.Len() < size; n++ {
		fmt.Fprintf(&text, "2026-11-23T12:%02d:%02d.%06dZ  \x1b[32m--- PASS\x1b[0m: TestSomething/case_%d (0.%02ds) in package %x\n", n/60%60, n%60, n%999983, n%1009, n%100, n*2654435761)
	}
	must(b, os.WriteFile(bulk, text.Bytes(), 0o600))
	text.Reset()
	w.push(b, "main", files(".forge.yml", lines(
		"image: busybox",
		"environment: {BULK: '"+bulk+"'}",
		`execute: [echo hello, 'cat "$BULK"; echo "till_test.go:7: error: it is empty"; exit 3']`,
	)))
	w.env = append(w.env, "FORGE_LOG_LIMIT=0")
	w.deploy(b, deployment{apart: true})
	_, sha := w.propose(b, "change", files("notes", "1"))
	w.patience = 2 * time.Minute
	page := w.shows(b, sha, "forge/test", "failure").TargetURL
	var pages, firsts, wholes, expressions []time.Duration
	for b.Loop() {
		begin := time.Now()
		if body := w.page(b, page); !strings.Contains(body, "error: it is empty") {
			b.Fatal("the page does not open at the failure")
		}
		pages = append(pages, time.Since(begin))
		first, whole := search(b, page, "q=CASE_777+")
		firsts, wholes = append(firsts, first), append(wholes, whole)
		_, whole = search(b, page, "regex=1&q="+url.QueryEscape(`case_9\d+ \(0\.0[1-5]s\)`))
		expressions = append(expressions, whole)
	}
	memory := scrolledThrough(b, page)
	b.ReportMetric(float64(pages[0].Milliseconds()), "ms/first-page")
	b.ReportMetric(float64(slices.Max(pages).Milliseconds()), "ms/page")
	b.ReportMetric(float64(slices.Max(firsts).Milliseconds()), "ms/first-hit")
	b.ReportMetric(float64(slices.Max(wholes).Milliseconds()), "ms/all-hits")
	b.ReportMetric(float64(slices.Max(expressions).Milliseconds()), "ms/expression")
	b.ReportMetric(memory, "MiB-browser")
	b.ReportMetric(w.process("scheduler").peak(b), "MiB-scheduler")
	b.ReportMetric(w.process("gateway").peak(b), "MiB-gateway")
	b.ReportMetric(0, "ns/op")
}

// search looks for something around the end of a log: how long the first hit takes,
// and all.
func search(b *testing.B, page, query string) (first, all time.Duration) {
	b.Helper()
	begin := time.Now()
	answer, err := http.Get(page + "/log/search?line=1000000&" + query)
	must(b, err)
	defer func() { _ = answer.Body.Close() }()
	for from := json.NewDecoder(answer.Body); ; {
		var told struct {
			Count      int64 `json:"count"`
			Done       bool  `json:"done"`
			Incomplete bool  `json:"incomplete"`
		}
		must(b, from.Decode(&told))
		if first == 0 && told.Count > 0 {
			first = time.Since(begin)
		}
		if told.Done {
			if told.Count < 1000 || told.Incomplete {
				b.Fatalf("%s: %+v", query, told)
			}
			return first, time.Since(begin)
		}
	}
}

// scrolledThrough is the memory that belongs to a browser's page alone after it has
// been all over a log, in MiB.
func scrolledThrough(b *testing.B, page string) float64 {
	b.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(kittest.Browser()), chromedp.NoSandbox)
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	defer stop()
	ctx, closeTab := chromedp.NewContext(ctx)
	defer closeTab()
	value := func(script string) string {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+script+")"))
		must(b, err)
		return got
	}
	must(b, chromedp.Do(ctx, chromedp.Navigate(page)))
	lines := func() int {
		n, _ := strconv.Atoi(value(`document.getElementById("map").getAttribute("aria-valuemax")`))
		return n
	}
	kittest.Eventually(b, patience, func() error {
		if lines() < 1_000_000 {
			return fmt.Errorf("the map has %d lines", lines())
		}
		return nil
	})
	for n := range 100 {
		// To a part of the log by the map, and on from there as somebody scrolls.
		value(fmt.Sprintf(`(() => { const map = document.getElementById("map"), box = map.getBoundingClientRect();
			map.setPointerCapture = () => {};
			map.dispatchEvent(new PointerEvent("pointerdown", {clientX: box.left + 5, clientY: box.top + box.height * %d / 100, bubbles: true})) })()`, n))
		for range 4 {
			before := value(`document.querySelectorAll(".l")[0].dataset.n + document.querySelectorAll(".l").length`)
			value(`document.getElementById("lines").scrollTop = 1e9`)
			kittest.Eventually(b, patience, func() error {
				if n < 99 && value(`document.querySelectorAll(".l")[0].dataset.n + document.querySelectorAll(".l").length`) == before {
					return fmt.Errorf("nothing came after %s", before)
				}
				return nil
			})
		}
	}
	return renderers(b)
}

// renderers is the memory that the browser's renderers under this process have for themselves, in MiB.
func renderers(b *testing.B) (most float64) {
	b.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(b, err)
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte("--type=renderer")) || !ours(filepath.Base(filepath.Dir(file))) {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(file), "smaps_rollup"))
		if err != nil {
			continue // it has ended
		}
		kib := 0
		for _, found := range regexp.MustCompile(`Private_(?:Clean|Dirty):\s+(\d+) kB`).FindAllSubmatch(rollup, -1) {
			n, _ := strconv.Atoi(string(found[1]))
			kib += n
		}
		most = max(most, float64(kib)/1024)
	}
	return most
}

// ours reports whether this process has started another, or what started it.
func ours(pid string) bool {
	for pid != "0" && pid != "1" && pid != "" {
		if pid == strconv.Itoa(os.Getpid()) {
			return true
		}
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return false
		}
		pid = strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[1]
	}
	return false
}

// BenchmarkLogFollowers has two hundred pages follow a log that gets a line every
// 50 ms: how long a line takes from the command to a page, the slowest of 20 (300 ms),
// and what the gateway needs for them (40 MB).
func BenchmarkLogFollowers(b *testing.B) {
	const followers = 200
	w := newWorld(b, nil)
	w.push(b, "main", files(".forge.yml", lines("image: busybox", "execute: [sh print.sh]"), "print.sh", lines(
		"n=0", `while [ $n -lt 600 ]; do echo "seen $(date +%s%N)"; sleep 0.05; n=$((n+1)); done`,
	)))
	w.deploy(b, deployment{apart: true})
	var waits []time.Duration
	var grown float64
	for n := 0; b.Loop(); n++ {
		_, sha := w.propose(b, fmt.Sprintf("change-%d", n), files("notes", strconv.Itoa(n)))
		page := w.shows(b, sha, "forge/test", "pending").TargetURL
		kittest.Eventually(b, patience, func() error {
			if text := w.log(b, page); !strings.Contains(text, "seen ") {
				return fmt.Errorf("it has printed %q", text)
			}
			return nil
		})
		_, before := w.process("gateway").used(b)
		ctx, leave := context.WithTimeout(b.Context(), 15*time.Second)
		var mu sync.Mutex
		var following sync.WaitGroup
		for range followers {
			following.Go(func() {
				own := followed(ctx, page)
				mu.Lock()
				defer mu.Unlock()
				waits = append(waits, own...)
			})
		}
		lasts(b, 14*time.Second)
		_, after := w.process("gateway").used(b)
		grown = max(grown, after-before)
		leave()
		following.Wait()
	}
	if len(waits) < followers*100 {
		b.Fatalf("%d lines came", len(waits))
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)*95/100].Milliseconds()), "ms-p95")
	b.ReportMetric(float64(waits[len(waits)/2].Milliseconds()), "ms-p50")
	b.ReportMetric(grown, "MiB-grown")
	b.ReportMetric(0, "ns/op")
}

// followed is how long lines took to a page that follows a log, but for those of its
// first two seconds.
func followed(ctx context.Context, page string) (waits []time.Duration) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"/log/events?offset=0", nil)
	if err != nil {
		return nil
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer func() { _ = answer.Body.Close() }()
	begin := time.Now()
	events := bufio.NewScanner(answer.Body)
	events.Buffer(nil, 4<<20)
	for events.Scan() {
		now := time.Now()
		for _, at := range regexp.MustCompile(`seen (\d{19})`).FindAllSubmatch(events.Bytes(), -1) {
			nanos, err := strconv.ParseInt(string(at[1]), 10, 64)
			if err == nil && now.Sub(begin) > 2*time.Second {
				waits = append(waits, now.Sub(time.Unix(0, nanos)))
			}
		}
	}
	return waits
}
