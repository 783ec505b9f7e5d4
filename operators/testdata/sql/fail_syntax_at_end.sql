-- fails: 2:33+1: syntax error: expected: an expression, found: EOF
SELECT flight FROM flights WHERE
