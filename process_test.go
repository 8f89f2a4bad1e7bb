package idempotent_test

const workerEnv = "IDEMPOTENT_TEST_WORKER"

func workerMain() {}
