package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
)

// mindRedis is a whole process: it runs a redis-server that keeps nothing, until standard input
// ends or the server does.
func mindRedis(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "usage:", roleMinder, "PATH PORT")
		return 2
	}
	signal.Ignore(os.Interrupt) // the parent decides when it is over
	if err := mind(os.Stdin, args[0], args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func mind(hold io.Reader, path, port string) error {
	dir, err := os.MkdirTemp("", "quickstart-redis-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server := exec.Command(path, "--port", port, "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--dir", dir, "--loglevel", "warning")
	server.Stdout, server.Stderr = os.Stderr, os.Stderr
	if err := server.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, hold)
		close(over)
	}()
	select {
	case err := <-ended:
		return err
	case <-over:
		_ = server.Process.Kill() // it has nothing to save
		<-ended
		return nil
	}
}
