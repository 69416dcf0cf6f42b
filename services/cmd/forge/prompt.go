package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// typeHidden reads a line from a terminal that does not show what is typed meanwhile. Also
// where a signal ends it, the terminal is as before then; the reading ends with the process.
func typeHidden(in *os.File) (line string, err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() { err = errors.Join(err, term.Restore(int(in.Fd()), before)) }()
	type read struct {
		line string
		err  error
	}
	done := make(chan read, 1)
	go func() {
		line, err := typedLine(in)
		done <- read{line, err}
	}()
	select {
	case <-signals:
		return "", codedError{exitInterrupted, errInterrupted}
	case r := <-done:
		return r.line, r.err
	}
}

// Keys of a raw terminal.
const (
	ctrlC         = 3
	ctrlD         = 4
	ctrlH         = 8
	ctrlU         = 21
	ctrlZ         = 26
	ctrlBackslash = 28
	backspace     = 127
)

// typedLine is what is typed until Enter, read byte by byte: what follows is for who asks next.
func typedLine(in io.Reader) (string, error) {
	var line []byte
	for key := make([]byte, 1); ; {
		if _, err := io.ReadFull(in, key); err != nil {
			return "", err
		}
		switch key[0] {
		case '\r', '\n':
			return string(line), nil
		case ctrlC, ctrlBackslash:
			return "", codedError{exitInterrupted, errInterrupted}
		case ctrlD:
			return "", errors.New("nothing is taken: Enter was not pressed")
		case ctrlU:
			line = line[:0]
		case backspace, ctrlH:
			_, size := utf8.DecodeLastRune(line)
			line = line[:len(line)-size]
		default:
			if key[0] >= ' ' || key[0] == '\t' {
				line = append(line, key[0])
			}
		}
	}
}
