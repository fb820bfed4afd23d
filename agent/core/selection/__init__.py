"""Which files of a repository a model is: one rule a module, all of them pure.

`tree` holds the files; `code` knows what can run code; `weights` picks one set of weights in one folder, and `gguf`,
`sentence_transformers`, `diffusers`, `adapters` and `companions` are the rules of their layouts. `rules` decides
which of them applies, `named` takes what a want or the catalog names, and `no_match` says what can be asked for
instead. docs/files.md has the rules as a user reads them.
"""

# The version of the rules: one more wherever they bring a file that they left out before. A published model that older
# rules chose is planned again (jobs/revisit.py). Version 0.1.0, whose records have none, left out folders of modules.
RULES = 1
