// Httpclient sends a payment to an API whose first answer is lost. The transport retries with the same key.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/idempotent-go/idempotent/idemhttp"
)

func main() {
	received := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received++
		fmt.Printf("request %d, key %s\n", received, r.Header.Get(idemhttp.KeyHeader))
		if received == 1 {
			panic(http.ErrAbortHandler) // the connection breaks: did the API take the money?
		}
		_, _ = io.WriteString(w, "paid")
	}))
	defer api.Close()

	transport, err := idemhttp.NewTransport(nil) // nil: over http.DefaultTransport
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	resp, err := client.Post(api.URL+"/payments", "application/json", strings.NewReader(`{"amount": 42}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, string(answer), err)
}
