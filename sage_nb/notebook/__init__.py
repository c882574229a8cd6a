"""What a notebook adds: magics, the cell's job view, text and static HTML."""
