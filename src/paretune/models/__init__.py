"""One frozen base model, a bank of low-rank experts, and the rules that weigh them for each row of a batch."""
