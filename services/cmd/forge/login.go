package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
)

// kept is what forge login keeps: which Forge, and the token for it.
type kept struct {
	Address string `json:"address"`
	Login   string `json:"login"`
	Token   string `json:"token"`
}

// keptAt is the file of it, in the folder where the user's programs keep such.
func keptAt() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("folder for what forge login keeps: %w", err)
	}
	return filepath.Join(folder, "forge", "login.json"), nil
}

// readKept returns what is kept; an error that is fs.ErrNotExist where nothing is.
func readKept() (k kept, err error) {
	path, err := keptAt()
	if err != nil {
		return kept{}, err
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return kept{}, fmt.Errorf("what forge login keeps: %w", err)
	}
	return k, nil
}

// keep stores it for the user alone, and whole or not at all.
func (k kept) keep() error {
	path, err := keptAt()
	if err != nil {
		return err
	}
	return k.keepAt(path)
}

func (k kept) keepAt(path string) error {
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".login-*") // for its owner alone
	if err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	_, err = draft.Write(text)
	err = errors.Join(err, draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		_ = os.Remove(draft.Name()) // it may be gone already
		return fmt.Errorf("keep the token: %w", err)
	}
	return nil
}

type login struct {
	Address string `arg:"" placeholder:"URL" help:"Address of Forge's pages, such as https://forge.example.com."`
	Name    string `placeholder:"NAME" help:"What the token is called on the page of your account. Default: the name of this machine."`
}

// Run signs in by GitHub's device flow.
func (l login) Run() error {
	address, err := url.Parse(l.Address)
	if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" {
		return usagef("%q is no address of Forge's pages: use something like https://forge.example.com", l.Address)
	}
	if l.Name == "" {
		if l.Name, err = os.Hostname(); err != nil || l.Name == "" {
			l.Name = "forge login"
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	k, err := l.signIn(ctx, os.Stdout, time.After)
	if err != nil {
		return err
	}
	if err := k.keep(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "You are signed in as %s. Verbs ask %s from now on where they find no admin token; forge logout ends it.\n", k.Login, k.Address)
	return err
}

// signIn shows the code and waits until it was entered.
func (l login) signIn(ctx context.Context, out io.Writer, after func(time.Duration) <-chan time.Time) (kept, error) {
	k := kept{Address: strings.TrimSuffix(l.Address, "/")}
	client := gatewayv1.NewSignInServiceClient(overHTTP{address: k.Address})
	begun, err := client.StartSignIn(ctx, &gatewayv1.StartSignInRequest{})
	if err != nil {
		return kept{}, fmt.Errorf("sign in at %s: %w", k.Address, err)
	}
	if _, err := fmt.Fprintf(out, "Enter the code %s at %s\n", begun.GetUserCode(), begun.GetAddress()); err != nil {
		return kept{}, err
	}
	for pause := begun.GetPause().AsDuration(); ; {
		select {
		case <-ctx.Done():
			return kept{}, fmt.Errorf("sign in at %s: the code was not entered in time", k.Address)
		case <-after(pause):
		}
		done, err := client.FinishSignIn(ctx, &gatewayv1.FinishSignInRequest{DeviceCode: begun.GetDeviceCode(), Name: l.Name})
		if err != nil {
			return kept{}, fmt.Errorf("sign in at %s: %w", k.Address, err)
		}
		if done.GetToken() != "" {
			k.Login, k.Token = done.GetLogin(), done.GetToken()
			return k, nil
		}
		if done.GetSlower() {
			pause += 5 * time.Second
		}
	}
}

type logout struct {
	Everywhere bool `help:"End all sessions and tokens of yours, not only this one."`
}

// Run ends the token, and forgets it whatever Forge says of it.
func (l logout) Run() error {
	k, err := readKept()
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("you are not signed in")
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callWithin)
	defer cancel()
	_, ended := gatewayv1.NewSignInServiceClient(k.conn()).SignOut(ctx, &gatewayv1.SignOutRequest{Everywhere: l.Everywhere})
	path, err := keptAt()
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("forget the token: %w", err)
	}
	if ended != nil {
		return fmt.Errorf("the token is forgotten here, but %s did not end it; delete it on the page of your account: %w", k.Address, ended)
	}
	_, err = fmt.Fprintf(os.Stdout, "%s is signed out of %s.\n", k.Login, k.Address)
	return err
}

func (k kept) conn() overHTTP { return overHTTP{address: k.Address, token: k.Token} }
