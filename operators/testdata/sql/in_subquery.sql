SELECT flight FROM flights WHERE carrier IN (SELECT carrier FROM airlines WHERE founded < 1990)
