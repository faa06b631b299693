

-- Rows that change while they are young stay where they are, so that no index has to learn of it: there is room beside them, and no
-- index follows what changes.

-- A picture is stored, and looked at soon after. Which of them are open is asked when a run takes over what another left.
DROP INDEX pictures_open;
ALTER TABLE pictures SET (fillfactor = 50);
