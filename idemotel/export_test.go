package idemotel

// ErrorTypes returns the values of error.type.
func ErrorTypes() []string { return errorTypeNames[1:] }
