package record

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func knownExtensions() Extensions {
	return Extensions(nil).With(FieldOrigin, bytes.Repeat([]byte{7}, originSize)).With(FieldOwner, bytes.Repeat([]byte{'m'}, MaxOwnerSize))
}

func largestExtensions() Extensions {
	return Extensions(nil).With(9, make([]byte, 255)).With(10, make([]byte, maxExtensionsSize-255-2-2))
}

// The numbers are stored, so they must not move.
func TestFieldNumbers(t *testing.T) {
	assert.Equal(t, []Field{1, 2, 3, 4}, []Field{FieldOwner, FieldOrigin, FieldShape, FieldSeal})
	assert.Len(t, largestExtensions(), maxExtensionsSize)
	assert.Len(t, knownExtensions(), knownFieldsSize)
}

// The memory of a claim has room for what a claim writes.
func TestLongestRunningRecordFitsItsBuffer(t *testing.T) {
	r := runningRecord()
	r.Extensions, r.Attempt = knownExtensions(), maxAttempt
	assert.LessOrEqual(t, len(r.Encode()), MaxRunningSize+len(r.Fingerprint))
}

func TestExtensionsCostOneByteWhenThereAreNone(t *testing.T) {
	with := doneRecord()
	with.Extensions = Extensions(nil).With(FieldOrigin, make([]byte, originSize))
	assert.Equal(t, 2+originSize, len(with.Encode())-len(doneRecord().Encode()))
}

func TestOwnerGoesWithoutACopy(t *testing.T) {
	e := knownExtensions()
	require.Zero(t, testing.AllocsPerRun(100, func() { e.Without(FieldOwner) }))
	assert.Nil(t, e.Without(FieldOwner).Get(FieldOwner))
	assert.Equal(t, e.Get(FieldOrigin), e.Without(FieldOwner).Get(FieldOrigin))
}

func TestInheritKeepsWhatThisCodeDoesNotKnow(t *testing.T) {
	dead := knownExtensions().With(FieldShape, []byte("shape")).With(77, []byte("later"))
	mine := Extensions(nil).With(FieldOwner, []byte("me"))
	next := mine.Inherit(dead)
	assert.Equal(t, mine.With(FieldShape, []byte("shape")).With(77, []byte("later")), next)
	assert.Nil(t, next.Get(FieldOrigin), "of the dead owner's run")
	assert.Equal(t, mine, mine.Inherit(nil))
	assert.Equal(t, mine, mine.Inherit(knownExtensions()))
	assert.Equal(t, largestExtensions(), mine.Inherit(largestExtensions()), "what informs people goes first")
}
