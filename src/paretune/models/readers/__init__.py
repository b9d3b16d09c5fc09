"""How rows are fed to the model: inputs, positions, masks, past and shared prompts, at each level of mixing."""
