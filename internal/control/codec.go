package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// maxRequest bounds a request line, in octets.
	maxRequest = 64 << 10
	// maxResponse bounds one line of an answer, in octets. A status or a reload of a
	// large policy is the biggest.
	maxResponse = 16 << 20
)

// ErrTooLong is returned for a message that exceeds its bound.
var ErrTooLong = errors.New("control message too long")

// ReadRequest reads and validates one request. Unknown fields, a second value on
// the line and a line of more than 64 KiB are errors: the daemon never acts on
// what it understands only in part.
func ReadRequest(r *bufio.Reader) (Request, error) {
	line, err := readLine(r, maxRequest)
	if err != nil {
		return Request{}, fmt.Errorf("reading a control request: %w", err)
	}
	var request Request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return Request{}, fmt.Errorf("reading a control request: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Request{}, errors.New("reading a control request: more than one value on the line")
	}
	return request, request.Validate()
}

// ReadResponse reads one line of an answer. Unknown fields are ignored, because a
// newer daemon may say more.
func ReadResponse(r *bufio.Reader) (Response, error) {
	line, err := readLine(r, maxResponse)
	if err != nil {
		return Response{}, fmt.Errorf("reading the firewall's answer: %w", err)
	}
	var response Response
	if err := json.Unmarshal(line, &response); err != nil {
		return Response{}, fmt.Errorf("reading the firewall's answer: %w", err)
	}
	if response.Version != Version {
		return Response{}, fmt.Errorf("reading the firewall's answer: it speaks version %d, this program %d; run `rootcell provision`", response.Version, Version)
	}
	return response, nil
}

// Write sends one message as a line. The caller serialises calls.
func Write[M Request | Response](w io.Writer, message M) error {
	line, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encoding a control message: %w", err)
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("sending a control message: %w", err)
	}
	return nil
}

// readLine returns a line without its end. It never holds more than limit octets,
// and an unfinished line is io.ErrUnexpectedEOF.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, ErrTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
