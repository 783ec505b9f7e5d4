-- fails: 2:34+23: error parsing timestamp from 'yesterday': timestamp must contain at least 10 characters
SELECT flight FROM flights WHERE scheduled > 'yesterday'
