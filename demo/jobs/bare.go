package main

import (
	"context"
	"encoding/json"

	"github.com/hibiken/asynq"
)

// bareType is the type of the job without this library, for comparison.
const bareType = "refund:bare"

// A bareRefunds is the handler that everybody writes first: asynq delivers, it pays.
type bareRefunds struct {
	bank *bankClient
}

func (h *bareRefunds) ProcessTask(ctx context.Context, task *asynq.Task) error {
	var r Refund
	if err := json.Unmarshal(task.Payload(), &r); err != nil {
		return err
	}
	receipt, err := h.bank.refund(ctx, r.ID, r)
	if err != nil {
		return err
	}
	return writeResult(task, receipt)
}
