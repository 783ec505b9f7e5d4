-- fails: 3:17+1: unterminated string literal
SELECT flight FROM flights
WHERE carrier = 'AA
