"""Labels for unlabelled images from a handful of given ones, and what a person should look at.

`given_labels` says what people have labelled, `nodes` which images are the nodes of the graph, and
`labels` finds a label for all of them, with its confidence. `next_images`, `suspicious` and
`duplicates` name images to look at; `exports` writes what other tools read.
"""
