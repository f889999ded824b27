"""The figures of the pages, recomputed from the records.

An invisible comment in a page names the source of a figure. The check calls the function that the comment names,
and fails if the page and the record differ.

After the figures, on the same line::

    .63 [.54, .72]<!-- = NAME arguments -->             the last numbers before it are the result of NAME
    a quarter of it<!-- about 1/4 = NAME arguments -->  NAME gives this within 15 %; also below 1/4, above 1/4
    less than 0.02<!-- below = NAME arguments -->       NAME gives less than the number before the mark
    the intervals overlap<!-- holds NAME arguments -->  NAME confirms it

A mark covers as many numbers as NAME returns, backwards from its position, within its paragraph, list item or
table row, and not past another mark. A number is compared in the decimals in which it is printed: ".63",
"1,105.6", "82 %" (of .82), "3e38"; directly before the mark also "six". Arguments are split as in a shell.

A function writes the text between these two lines::

    <!-- table: NAME arguments -->
    <!-- /table -->

    <!-- note: any other comment -->

`python -m experiments.pages.check` (`make docs-check`) checks; with --functions it lists the functions that marks
can name, with --others the numbers without a mark. With --write (`make pages`) it writes the tables and the figures
that differ, and lists them; a person has to read the sentences around them again.
"""
