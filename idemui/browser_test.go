package idemui_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemui"
	"github.com/idempotent-go/idempotent/internal/sample"
)

var pictures = flag.String("pictures", "", "write screenshots of each page into this directory")

// A tab is one page in Chromium.
type tab struct {
	*testing.T
	ctx context.Context
}

func chromium(t *testing.T) tab {
	t.Helper()
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); path == "" && err == nil {
			path = found
		}
	}
	require.NotEmpty(t, path, "needs Chromium: run scripts/ensure-chromium, or set CHROMIUM")
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("no-proxy-server", true))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancel)
	return tab{t, ctx}
}

func do[T any](tab tab, action chromedp.Action[T]) T {
	tab.Helper()
	v, err := chromedp.Run(tab.ctx, action)
	require.NoError(tab, err)
	return v
}

func (tab tab) open(url string) {
	tab.Helper()
	do(tab, chromedp.Navigate(url))
}

func (tab tab) text() string {
	tab.Helper()
	return do(tab, chromedp.Text("body"))
}

// click clicks and returns when the next page is there, which has a text.
func (tab tab) click(selector, want string) {
	tab.Helper()
	do(tab, chromedp.Click(selector))
	require.Eventually(tab, func() bool { // while it navigates, there is no page to ask
		text, err := chromedp.Run(tab.ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
		return err == nil && strings.Contains(text, want)
	}, 30*time.Second, 20*time.Millisecond, want)
}

func TestInChromium(t *testing.T) {
	s := serve(t, everybody)
	tab := chromium(t)
	tab.open(s.URL + base)
	assert.Contains(t, tab.text(), "8 operations")
	tab.click(`a[href="list"]`, "order-45")

	// A hostile key stays text, and can be settled.
	assert.Equal(t, "idempotent", do(tab, chromedp.Title()))
	assert.Contains(t, tab.text(), `"<script>document.title='x'</script>\x1b[2J\x1b[31m\"'&\x00"`)
	tab.open(s.URL + base + "key?" + about("payments", sample.HostileKey).Encode())
	assert.Equal(t, "idempotent", do(tab, chromedp.Title()))
	do(tab, chromedp.SetValue(`form[action=forget] input[name=confirm]`, `"<script>document.title='x'</script>\x1b[2J\x1b[31m\"'&\x00"`))
	tab.click("#forget", "Forgotten")
	assert.False(t, s.stored(t, sample.HostileKey))
	assert.Equal(t, sample.HostileKey, (<-s.audits).Key)

	tab.open(s.URL + base + "key?" + about("payments", "order-41").Encode())
	assert.NotContains(t, tab.text(), sample.Secret)
	tab.click("#reveal", sample.Secret)
	assert.Equal(t, idemui.ActionPayload, (<-s.audits).Action)

	tab.open(s.URL + base + "key?" + about("payments", "order-42").Encode())
	do(tab, chromedp.SetValue("textarea", `{"ID":"ch_9"}`))
	do(tab, chromedp.SetValue(`form[action=resolve] input[name=confirm]`, "order-4"))
	tab.click("#resolve", "nothing was done")
	assert.Equal(t, `{"ID":"ch_9"}`, do(tab, chromedp.Value("textarea")), "what was typed stays")
	do(tab, chromedp.SetValue(`form[action=resolve] input[name=confirm]`, "order-42"))
	tab.click("#resolve", "Resolved")
	assert.Equal(t, idempotent.StateSucceeded, (<-s.audits).After.State)
}

// Another site has the operator's browser post the form.
func TestCrossSiteFormInChromium(t *testing.T) {
	s := serve(t, everybody)
	answers := make(chan int, 1)
	handler := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		if r.Method == http.MethodPost {
			answers <- recorder.Code
		}
		w.WriteHeader(recorder.Code)
	})
	attacker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><form method="post" action="%s">`, s.URL+base+"forget")
		for name, values := range about("payments", "order-42", "confirm", "order-42") {
			fmt.Fprintf(w, `<input name="%s" value="%s">`, name, values[0])
		}
		fmt.Fprint(w, `</form><script>document.forms[0].submit()</script>`)
	}))
	t.Cleanup(attacker.Close)
	tab := chromium(t)
	tab.open(strings.Replace(attacker.URL, "127.0.0.1", "localhost", 1))
	assert.Equal(t, http.StatusForbidden, <-answers)
	assert.True(t, s.stored(t, "order-42"))
	assert.Empty(t, s.audits)
}

// Each page fits a narrow screen, and text has contrast, in light and dark.
func TestLooks(t *testing.T) {
	s := serve(t, everybody)
	tab := chromium(t)
	paths := map[string]string{"overview": "", "list": "list", "key": "key?" + about("payments", "order-42").Encode(), "hostile": "key?" + about("payments", sample.HostileKey).Encode(), "payload": "key?" + about("payments", "order-41").Encode()}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{360, 1100} {
			for name, path := range paths {
				do(tab, chromedp.EmulateViewport(width, 800))
				setScheme(tab, scheme)
				tab.open(s.URL + base + path)
				if name == "payload" {
					tab.click("#reveal", sample.Secret)
				}
				at := fmt.Sprint(name, " ", scheme, " ", width)
				assert.LessOrEqual(t, do(tab, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`)), width, at)
				assert.Empty(t, do(tab, chromedp.Evaluate[[]string](lowContrast)), at)
				if *pictures != "" {
					b := do(tab, chromedp.FullScreenshot(100))
					require.NoError(t, os.WriteFile(filepath.Join(*pictures, fmt.Sprintf("%s-%s-%d.png", name, scheme, width)), b, 0o600))
				}
			}
		}
	}
}

// lowContrast lists the texts whose contrast with the page is below 4.5 to 1 (WCAG 2.1, 1.4.3).
const lowContrast = `(() => {
	const parse = c => c.match(/[\d.]+/g).map(Number);
	const lum = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
	const back = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
	return [...document.querySelectorAll("main *, header *")].filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())).filter(e => {
		const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(back(e))].sort((x, y) => y - x);
		return (a + .05) / (b + .05) < 4.5;
	}).map(e => e.tagName + ": " + e.textContent.trim().slice(0, 40));
})()`

func setScheme(tab tab, scheme string) {
	tab.Helper()
	do(tab, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
		return chromedp.Void{}, err
	})
}
