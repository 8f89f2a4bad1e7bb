package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ServeHTTP serves at an address of its own, until stop is called. broken is told of a breakdown.
func ServeHTTP(h http.Handler, broken func(error)) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			broken(err)
		}
	}()
	return "http://" + listener.Addr().String(), func() { _ = server.Close() }, nil
}

// Respond answers with JSON.
func Respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails when the caller is gone, which is its own affair
}

// Euros prints an amount.
func Euros(cents int64) string { return fmt.Sprintf("%d.%02d EUR", cents/100, cents%100) }
