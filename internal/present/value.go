package present

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// Encode turns a value that was typed as JSON into bytes of the codec msgpack or JSON, and any text into those of raw.
// Names of codecs may be in any case.
func Encode(value, codec string) ([]byte, error) {
	switch strings.ToLower(codec) {
	case "raw":
		return []byte(value), nil
	case "json":
		if !json.Valid([]byte(value)) {
			return nil, errNoJSON
		}
		return []byte(value), nil
	case "msgpack":
	default:
		return nil, fmt.Errorf("codec is %.20q; allowed: msgpack, JSON, raw", codec)
	}
	decoder := json.NewDecoder(strings.NewReader(value))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, errNoJSON
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoJSON
	}
	v, err := numbers(v)
	if err != nil {
		return nil, err
	}
	return msgpack.Marshal(v)
}

var (
	errNoJSON   = errors.New("value is no JSON; allowed: one JSON value")
	errNoNumber = errors.New("value has a number that would change; allowed: integers of 64 bits, and what a float64 holds")
)

// numbers replaces the numbers of JSON by integers where they are whole, and by float64 otherwise.
func numbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range v {
			if v[key], err = numbers(v[key]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func number(text string) (any, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !strings.ContainsAny(text, ".eE") {
		return nil, errNoNumber
	}
	return f, nil
}

// Decode returns the JSON that shows a payload of the codec msgpack or JSON. ok is false if that would not show all.
func Decode(payload []byte, codec string) (text []byte, ok bool) {
	switch codec {
	case "JSON":
		return payload, json.Valid(payload)
	case "msgpack":
		decoder := msgpack.NewDecoder(bytes.NewReader(payload))
		v, err := decoder.DecodeInterfaceLoose()
		if err != nil {
			return nil, false
		}
		if text, err = json.Marshal(v); err != nil {
			return nil, false
		}
		_, err = decoder.PeekCode()
		return text, errors.Is(err, io.EOF)
	}
	return nil, false
}
