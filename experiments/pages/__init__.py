"""The figures of the pages, recomputed from the records.

A page says in a comment, which does not show, where a figure comes from. The check calls the function that
the comment names, and fails where the page says something else than the record.

After the figures, on the same line::

    .63 [.54, .72]<!-- = NAME arguments -->             the last numbers before it are what NAME gives
    a quarter of it<!-- about 1/4 = NAME arguments -->  NAME gives this within 15 %; also below 1/4, above 1/4
    less than 0.02<!-- below = NAME arguments -->       NAME gives less than the number before the mark
    the intervals overlap<!-- holds NAME arguments -->  NAME says so

A mark takes as many numbers as NAME gives, backwards from where it stands, within its paragraph, list item or
row of a table, and not past another mark. A number is compared in the decimals in which it is printed: ".63",
"1,105.6", "82 %" (of .82), "3e38"; directly before the mark also "six". Arguments are split as in a shell.

What stands between these two lines is written by a function::

    <!-- table: NAME arguments -->
    <!-- /table -->

    <!-- note: any other comment -->

`python -m experiments.pages.check` (`make docs-check`) checks; with --functions it lists what marks can name,
with --others the numbers without a mark. With --write (`make docs`) it writes the tables, and figures that
differ, and says which: the sentences around them are for a person to read again.
"""
