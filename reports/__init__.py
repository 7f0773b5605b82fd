"""Reports: what may be asked of the books, as SQL over what the services said; and the files of the answers."""
