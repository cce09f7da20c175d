"""The data as the model sees it, for people: in a terminal or as one HTML page.

In:  examples with their tokens and roles, and the DataStats of the rows that were read.
Out: text on a rich Console, or a string of HTML.

    content     PreviewRow, the labels, and all text and numbers that both outputs show
    terminal    colours for a terminal, marks without colour
    dropped     dropped rows in a terminal, with a mark at the place of each fault
    html        a page of one file, without script or network
"""
