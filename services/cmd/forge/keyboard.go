package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// errLeft is that somebody has seen enough of a page.
var errLeft = errors.New("left")

// keyboard is the terminal of a page. Where it has keys, they come as they are pressed,
// and none is shown.
type keyboard struct {
	hasKeys bool
	before  *term.State
}

// atKeyboard has do show a page until that is over, or a key is pressed that leaves it: q,
// or one that elsewhere sends a signal. However it ends, the terminal is as it was then.
// Ctrl-Z stops the process; redraw is told once it goes on.
func atKeyboard(ctx context.Context, redraw chan<- os.Signal, do func(context.Context, *keyboard) error) (err error) {
	k := &keyboard{hasKeys: term.IsTerminal(int(os.Stdin.Fd()))}
	if !k.hasKeys {
		return do(ctx, k)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGHUP) // before one could end the process and leave the terminal raw
	defer signal.Stop(signals)
	if err := k.take(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.giveBack()) }()
	ctx, leave := context.WithCancelCause(ctx)
	keys := make(chan byte)
	go readKeys(ctx, keys) // which ends with the process: nothing ends a read of a terminal
	var heeding sync.WaitGroup
	heeding.Go(func() {
		if left := k.heed(ctx, keys, signals, redraw); left != nil {
			leave(left)
		}
	})
	defer heeding.Wait()
	defer leave(nil)
	err = do(ctx, k)
	if left := context.Cause(ctx); left != nil && ctx.Err() != nil {
		return left
	}
	return err
}

// take has keys come as they are pressed.
func (k *keyboard) take() (err error) {
	if k.before, err = term.MakeRaw(int(os.Stdin.Fd())); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}

// giveBack leaves the terminal as it was.
func (k *keyboard) giveBack() error { return term.Restore(int(os.Stdin.Fd()), k.before) }

// noCharacter is what a key sends that is none, such as that of an arrow.
var noCharacter = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|O?.)?`)

// readKeys reads keys until the terminal is gone.
func readKeys(ctx context.Context, into chan<- byte) {
	for data := make([]byte, 64); ; {
		n, err := os.Stdin.Read(data)
		if err != nil {
			return
		}
		for _, key := range noCharacter.ReplaceAll(data[:n], nil) {
			select {
			case into <- key:
			case <-ctx.Done():
				return
			}
		}
	}
}

// heed returns why the page is left; nil once ctx has ended.
func (k *keyboard) heed(ctx context.Context, keys <-chan byte, signals <-chan os.Signal, redraw chan<- os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			return errLeft
		case key := <-keys:
			switch key {
			case 'q', ctrlC, ctrlBackslash:
				return errLeft
			case ctrlZ:
				if err := k.suspend(); err != nil {
					return err
				}
				select {
				case redraw <- syscall.SIGWINCH:
				default: // it is told already
				}
			}
		}
	}
}

// suspend stops the process, and whatever else Ctrl-Z would stop, until it is continued.
// Where nobody could do that, the kernel does not stop it.
func (k *keyboard) suspend() error {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	if err := k.giveBack(); err != nil {
		return err
	}
	if err := syscall.Kill(0, syscall.SIGTSTP); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	select {
	case <-continued:
	case <-time.After(time.Second):
	}
	return k.take()
}

// draw draws a page over what was drawn before, and below it how it is left.
func (k *keyboard) draw(terminal *os.File, p *page) error {
	width, height, err := term.GetSize(int(terminal.Fd()))
	if err != nil || width <= 0 || height <= 0 { // a serial line has no size
		width, height = 80, 24
	}
	last, lineEnd := "Ctrl-C leaves", "\n"
	if k.hasKeys { // its terminal adds nothing to a line end
		last, lineEnd = "q or Ctrl-C leaves", "\r\n"
	}
	var text coloured
	p.print(&text)
	lines := fitted(text.shown(), "\x1b["+dim+"m"+last+"\x1b[0m", width, height)
	_, err = io.WriteString(terminal, "\x1b[H"+strings.ReplaceAll(lines, "\n", lineEnd)+"\x1b[J")
	return err
}
